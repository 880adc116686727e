"""From a batch in host memory to a batch on the model's device, while the model works on the one before.

Takes `TensorBatch`es in a thread that prepares them, hands them on in the learner's. On a GPU the batch's arrays are
page-locked from the start (`allocate`), and travel on a stream of their own; on a CPU the tensors are the arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import torch

from learner.batch import TensorBatch


class DeviceFeed:
    """Moves batches to one device.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    @property
    def allocate(self) -> Callable[[tuple[int, ...], np.dtype], np.ndarray] | None:
        """How the arrays of a batch are to be made: page-locked if they go to a GPU, None if it does not matter."""
        return None if self._stream is None else self._allocate

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        like = torch.from_numpy(np.empty(0, dtype))
        return torch.empty(shape, dtype=like.dtype, pin_memory=True).numpy()

    def put(self, batch: TensorBatch) -> TensorBatch:
        """The batch on the device; for the preparing thread, which waits here until the copy is whole."""
        if self._stream is None:
            return batch.to(self.device)
        with torch.cuda.stream(self._stream):
            moved = batch.to(self.device)
        self._stream.synchronize()
        return moved

    def take(self, batch: TensorBatch) -> TensorBatch:
        """The same batch, for the learner's thread: its memory is not given away while that thread's stream uses it."""
        if self._stream is not None:
            for field in fields(batch):
                getattr(batch, field.name).record_stream(torch.cuda.current_stream(self.device))
        return batch
