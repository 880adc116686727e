"""A batch under way. Takes parts, copies their windows into arrays of its own; hands on full batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from embodichain.contracts import Batch
from embodichain.replay.links import Part
from embodichain.replay.store import SampleReply

Allocate = Callable[[tuple[int, ...], np.dtype], np.ndarray]
ARRAYS = tuple(field.name for field in fields(Batch) if field.name not in ("instruction", "recipe_id"))


@dataclass(frozen=True, kw_only=True)
class BatchInfo:
    """What one batch cost.

    Attributes:
        fresh_pairs: first uses in it.
        uses: pair uses in it.
        age_mean_s: mean seconds since the windows' episodes were inserted.
        stall_s: seconds the client waited for it, empty-handed polls included.
        parts: requests it was joined from.
    """

    fresh_pairs: int
    uses: int
    age_mean_s: float
    stall_s: float
    parts: int


class Assembly:
    """Room for one batch of `size` windows. Windows count once they are `kept`: until then they can be overwritten.

    Args:
        size: B.
        allocate: makes the arrays, given shape and dtype; None: the memory that the first part came in, where that can
            be had, so that only the others are copied, or else fresh arrays.
    """

    def __init__(self, size: int, allocate: Allocate | None = None) -> None:
        self.size = size
        self.intact: Callable[[], bool] = lambda: True
        self.rows = 0
        self.parts = 0
        self._allocate = allocate
        self._arrays: dict[str, np.ndarray] = {}
        self._strings: dict[str, list[str]] = {"instruction": [], "recipe_id": []}
        self._fresh = 0

    @property
    def missing(self) -> int:
        """Windows that still fit."""
        return self.size - self.rows

    def place(self, part: Part, start: int, stop: int) -> None:
        """Copy windows `start <= b < stop` of a part behind those kept, without keeping them yet."""
        batch = part.reply.batch
        if not self._arrays and self._allocate is None and start == 0 and (adopted := part.adopt()) is not None:
            self._arrays, self.intact = adopted, part.intact
            return
        if not self._arrays:
            for name in ARRAYS:
                array = getattr(batch, name)
                self._arrays[name] = (self._allocate or np.empty)((self.size, *array.shape[1:]), array.dtype)
        for name, own in self._arrays.items():
            own[self.rows : self.rows + stop - start] = getattr(batch, name)[start:stop]

    def keep(self, reply: SampleReply, start: int, stop: int) -> None:
        """What was placed last is good."""
        self.rows += stop - start
        self.parts += 1
        for name, own in self._strings.items():
            own += getattr(reply.batch, name)[start:stop]
        self._fresh += int(reply.fresh[start:stop].sum())

    def batch(self) -> Batch:
        """The windows kept so far."""
        content: dict[str, Any] = {name: array[: self.rows] for name, array in self._arrays.items()}
        return Batch(**content, **self._strings)  # type: ignore[arg-type]

    def finish(self, stall_s: float) -> tuple[Batch, BatchInfo]:
        """The whole batch and what it cost."""
        batch = self.batch()
        info = BatchInfo(
            fresh_pairs=self._fresh,
            uses=batch.pair_uses,
            age_mean_s=float(time.time() - np.mean(batch.inserted_at)),
            stall_s=stall_s,
            parts=self.parts,
        )
        return batch, info
