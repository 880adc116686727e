"""The `sync` policy runtime: observe, imagine, act, for one environment or many in lockstep.

Owns the memory and the previous chunk of each episode, and the sampling noise. Takes encoded observations as NumPy
arrays, hands on chunks of absolute targets. The caller executes the first tau actions of a chunk, then asks again.
"""

from __future__ import annotations

import numpy as np
import torch

from learner.batch import Frame
from learner.interface import WorldActionModel


class SyncPolicy:
    """Runs a `WorldActionModel` closed loop; B episodes start and step together."""

    def __init__(self, model: WorldActionModel, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
        """Args: `model` on `device`, in evaluation mode; `seed` of the sampling noise."""
        self._model, self._device = model, torch.device(device)
        self._rng = torch.Generator(device=self._device)
        self._seed = seed
        self._memory: object = None
        self._text: torch.Tensor | None = None
        self._valid: torch.Tensor | None = None
        self._previous: torch.Tensor | None = None
        self.imagined: np.ndarray | None = None

    def reset(self, text: np.ndarray, action_valid: np.ndarray) -> None:
        """Begin B episodes: memory and noise start anew, so an episode's actions do not depend on earlier ones.

        Args:
            text: f32[B, D_text], embedded instructions.
            action_valid: bool[A] or bool[B, A], which action dims the embodiment has.

        Raises:
            ValueError: for a text embedding of the wrong length.
        """
        data = self._model.data
        if text.ndim != 2 or text.shape[1] != data.text_dim:
            raise ValueError(f"text: shape {list(text.shape)}, expected [B, {data.text_dim}]")
        b = text.shape[0]
        self._text = self._tensor(text, np.float32)
        self._valid = self._tensor(np.broadcast_to(action_valid, (b, action_valid.shape[-1])).copy(), np.bool_)
        self._memory = self._model.initial_memory(b)
        self._previous, self.imagined = None, None
        self._rng.manual_seed(self._seed)

    @torch.inference_mode()
    def step(self, tokens: np.ndarray, token_mask: np.ndarray, proprio: np.ndarray) -> np.ndarray:
        """The next chunk of each episode; `imagined` then holds what the model expects to see tau steps on.

        Args:
            tokens: [B, L, C], encoded observations.
            token_mask: bool[L] or bool[B, L], tokens that exist.
            proprio: f32[B, P].

        Returns:
            f32[B, N, A], absolute targets in the unified layout, zero in dims that are not executed.

        Raises:
            ValueError: before `reset`, or for shapes that do not fit the model.
        """
        if self._text is None or self._valid is None:
            raise ValueError("policy.step before policy.reset: expected reset(text, action_valid) first")
        b, model = len(self._text), self._model
        frame = Frame(
            tokens=self._tensor(tokens, np.float32),
            token_mask=self._tensor(np.broadcast_to(token_mask, (b, token_mask.shape[-1])).copy(), np.bool_),
            proprio=self._tensor(proprio, np.float32),
            text=self._text,
            action_valid=self._valid,
        )
        executed = self._previous is not None
        previous = self._previous if self._previous is not None else self._nothing(b)
        known = torch.full((b,), executed, device=self._device)
        self._memory = model.observe(self._memory, frame, previous, known)
        imagined = model.imagine(self._memory, frame, self._rng) if model.config.condition.use else None
        chunk = model.act(self._memory, frame, imagined, self._rng)
        self._previous = chunk[:, : model.data.tau]
        self.imagined = None if imagined is None else imagined.cpu().numpy()
        return chunk.float().cpu().numpy()

    def _nothing(self, batch: int) -> torch.Tensor:
        return torch.zeros(batch, self._model.data.tau, self._valid_dims(), device=self._device)

    def _valid_dims(self) -> int:
        return 0 if self._valid is None else int(self._valid.shape[-1])

    def _tensor(self, array: np.ndarray, dtype: type) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=dtype)).to(self._device)
