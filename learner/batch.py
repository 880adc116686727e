"""What the models read: a batch of windows, or the present frame, as tensors.

Takes the NumPy `Batch` of the contracts and text embeddings; hands on `TensorBatch`. Knows no encoder and no replay.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from embodichain.contracts import ACTION_DIM, Batch
from learner.config import DataSpec


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a policy sees at one moment, for B environments.

    Attributes:
        tokens: f32[B, L, C]. `token_mask`: bool[B, L].
        proprio: f32[B, P], unified layout, measured.
        text: f32[B, D_text], embedded instruction.
        action_valid: bool[B, A].
    """

    tokens: Tensor
    token_mask: Tensor
    proprio: Tensor
    text: Tensor
    action_valid: Tensor

    def check(self, data: DataSpec) -> None:
        """Raise `ValueError`, naming the field, unless the shapes fit `data`."""
        b = self.tokens.shape[0]
        expected = {
            "tokens": (b, data.tokens, data.channels),
            "token_mask": (b, data.tokens),
            "proprio": (b, data.proprio),
            "text": (b, data.text_dim),
            "action_valid": (b, ACTION_DIM),
        }
        _check_shapes("frame", self, expected)


@dataclass(frozen=True, kw_only=True)
class TensorBatch:
    """B windows of K frames, as in `contracts.Batch`, with the instruction embedded.

    Attributes:
        tokens: f32[B, K+1, L, C]. `token_mask`: bool[B, L]. `frame_mask`: bool[B, K+1].
        proprio: f32[B, K+1, P].
        action: f32[B, K, N, A], absolute. `action_exists`, `action_mask`: bool[B, K, N]. `action_valid`: bool[B, A].
        previous_action: f32[B, K, tau, A]. `previous_mask`: bool[B, K].
        text: f32[B, D_text].
    """

    tokens: Tensor
    token_mask: Tensor
    frame_mask: Tensor
    proprio: Tensor
    action: Tensor
    action_exists: Tensor
    action_mask: Tensor
    action_valid: Tensor
    previous_action: Tensor
    previous_mask: Tensor
    text: Tensor

    @property
    def size(self) -> int:
        """B."""
        return int(self.tokens.shape[0])

    @property
    def frames(self) -> int:
        """K."""
        return int(self.action.shape[1])

    def to(self, device: torch.device | str) -> TensorBatch:
        """The same batch on `device`."""
        return TensorBatch(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def split(self, parts: int) -> list[TensorBatch]:
        """`parts` batches of as many windows each, or one more; of fewer windows than parts one batch each."""
        parts = min(parts, self.size)
        pieces = {f.name: getattr(self, f.name).tensor_split(parts) for f in fields(self)}
        return [TensorBatch(**{name: tensors[i] for name, tensors in pieces.items()}) for i in range(parts)]

    def frame(self, index: int) -> Frame:
        """The windows' frame `index` as the present; 0 <= index <= K."""
        return Frame(
            tokens=self.tokens[:, index],
            token_mask=self.token_mask,
            proprio=self.proprio[:, index],
            text=self.text,
            action_valid=self.action_valid,
        )

    def check(self, data: DataSpec) -> None:
        """Raise `ValueError`, naming the field, unless the shapes fit `data` and each other."""
        b, k = self.size, self.frames
        expected: dict[str, tuple[int, ...]] = {
            "tokens": (b, k + 1, data.tokens, data.channels),
            "token_mask": (b, data.tokens),
            "frame_mask": (b, k + 1),
            "proprio": (b, k + 1, data.proprio),
            "action": (b, k, data.chunk, ACTION_DIM),
            "action_exists": (b, k, data.chunk),
            "action_mask": (b, k, data.chunk),
            "action_valid": (b, ACTION_DIM),
            "previous_action": (b, k, data.tau, ACTION_DIM),
            "previous_mask": (b, k),
            "text": (b, data.text_dim),
        }
        _check_shapes("batch", self, expected)


def prepare_batch(batch: Batch, text: np.ndarray) -> TensorBatch:
    """Tensors that share the batch's memory where dtypes allow.

    Args:
        batch: B windows.
        text: f32[B, D_text], the embedding of each window's instruction.

    Raises:
        ValueError: if `text` has not one row per window.
    """
    if text.ndim != 2 or text.shape[0] != batch.size:
        raise ValueError(f"text: shape {list(text.shape)}, expected [{batch.size}, D_text]")
    arrays = {f.name: getattr(batch, f.name) for f in fields(TensorBatch) if f.name != "text"}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    floats = {name: t if t.dtype == torch.bool else t.float() for name, t in tensors.items()}
    return TensorBatch(**floats, text=torch.from_numpy(np.ascontiguousarray(text, dtype=np.float32)))


def _check_shapes(what: str, owner: Frame | TensorBatch, expected: dict[str, tuple[int, ...]]) -> None:
    for name, shape in expected.items():
        have = tuple(getattr(owner, name).shape)
        if have != shape:
            raise ValueError(f"{what}.{name}: shape {list(have)}, expected {list(shape)}")
