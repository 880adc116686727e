"""Slots for batches in memory that two processes share. Owns: where each array of a slot lies, and the slot's header.

The memory is a file without a name (`memfd_create`): the kernel frees it with the last process that holds it, so
nothing is left behind by a crash, nobody can unlink it under its user, and a container's small /dev/shm is no limit.
Its pages are touched once at the start; a first touch costs tens of times a copy.

A slot's header holds the ring's generation and a sequence number, odd while the slot is being written. A reader
compares both with what it was told before it reads, and again after it has copied.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

_ALIGN = 64
_HEADER = 2  # u64: generation, sequence


@dataclass(frozen=True, kw_only=True)
class RingLayout:
    """How a ring is cut into slots, and a slot into arrays.

    Attributes:
        generation: number of this ring, unlike that of any other.
        slots: how many batches fit.
        windows: rows of every array.
        fields: name -> dtype and shape per window.
    """

    generation: int
    slots: int
    windows: int
    fields: Mapping[str, tuple[str, tuple[int, ...]]]

    def offsets(self) -> dict[str, int]:
        """Byte of each array in its slot."""
        at, offsets = _ALIGN, {}
        for name, (dtype, shape) in self.fields.items():
            offsets[name] = at
            at += _aligned(self.windows * math.prod(shape) * np.dtype(dtype).itemsize)
        return offsets

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot, its header included."""
        sizes = (self.windows * math.prod(shape) * np.dtype(dtype).itemsize for dtype, shape in self.fields.values())
        return _ALIGN + sum(_aligned(size) for size in sizes)

    def to_dict(self) -> dict[str, object]:
        """JSON-able."""
        return {
            "generation": self.generation,
            "slots": self.slots,
            "windows": self.windows,
            "fields": {name: [dtype, list(shape)] for name, (dtype, shape) in self.fields.items()},
        }

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> RingLayout:
        """Inverse of `to_dict`."""
        fields = data["fields"]
        if not isinstance(fields, dict):
            raise TypeError(f"ring fields: {fields!r}, expected a mapping")
        return cls(
            generation=int(str(data["generation"])),
            slots=int(str(data["slots"])),
            windows=int(str(data["windows"])),
            fields={name: (dtype, tuple(shape)) for name, (dtype, shape) in fields.items()},
        )


class Ring:
    """A mapped ring. The shard writes headers and what it gathers; a slot that it handed over is the consumer's.

    Args:
        fd: of the memory; closed here, the mapping stays as long as any array in it.
        layout: how it is cut.
    """

    def __init__(self, fd: int, layout: RingLayout) -> None:
        self.layout = layout
        size = layout.slots * layout.slot_bytes
        try:
            if os.fstat(fd).st_size < size:
                raise ValueError(f"ring: {os.fstat(fd).st_size} bytes, expected {size}")
            self._memory = mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        finally:
            os.close(fd)
        starts = range(0, size, layout.slot_bytes)
        self._headers = [np.frombuffer(self._memory, np.uint64, _HEADER, start) for start in starts]
        self._offsets = layout.offsets()
        self._slots = [self.view(slot) for slot in range(layout.slots)]

    @classmethod
    def create(cls, layout: RingLayout) -> tuple[Ring, int]:
        """A new ring, its pages touched, and a file descriptor to hand to the reader (the caller closes it)."""
        fd = os.memfd_create("embodichain-replay", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        size = layout.slots * layout.slot_bytes
        try:
            os.posix_fallocate(fd, 0, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)  # no reader meets a hole
            ring = cls(os.dup(fd), layout)
        except BaseException:
            os.close(fd)
            raise
        for header in ring._headers:
            header[:] = (layout.generation, 0)
        return ring, fd

    def arrays(self, slot: int) -> dict[str, np.ndarray]:
        """All rows of a slot's arrays."""
        return self._slots[slot]

    def view(self, slot: int, released: Callable[[], object] | None = None) -> dict[str, np.ndarray]:
        """The same arrays, made anew; `released` is called once nobody has any of them, or a part of one, any more."""
        whole = np.frombuffer(self._memory, np.uint8, self.layout.slot_bytes, slot * self.layout.slot_bytes)
        if released is not None:
            weakref.finalize(whole, released)  # every view below holds on to `whole`, and so does a tensor made of one
        arrays = {}
        for name, (dtype, shape) in self.layout.fields.items():
            at, size = self._offsets[name], self.layout.windows * math.prod(shape) * np.dtype(dtype).itemsize
            arrays[name] = whole[at : at + size].view(dtype).reshape(self.layout.windows, *shape)
        return arrays

    def begin(self, slot: int) -> None:
        """The writer: the slot is not to be read from here on."""
        self._headers[slot][1] += np.uint64(1)

    def commit(self, slot: int) -> int:
        """The writer: the slot is whole; returns the sequence number that a reader must find."""
        self._headers[slot][1] += np.uint64(1)
        return int(self._headers[slot][1])

    def intact(self, slot: int, sequence: int) -> bool:
        """The reader: whether the slot still holds what was committed under `sequence`."""
        generation, found = self._headers[slot].tolist()
        return generation == self.layout.generation and found == sequence and sequence % 2 == 0


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
