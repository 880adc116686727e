"""Named, disjoint seed ranges: what is trained on can never be evaluated on, by construction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SeedRange:
    """Seeds `start <= seed < stop`; `at(i)` is the i-th one."""

    name: str
    start: int
    stop: int

    def __contains__(self, seed: object) -> bool:
        return isinstance(seed, int) and self.start <= seed < self.stop

    def at(self, index: int) -> int:
        """The index-th seed. Raises `IndexError` past the end: ranges never overlap silently."""
        if not 0 <= index < self.stop - self.start:
            raise IndexError(f"seed range {self.name!r} holds {self.stop - self.start} seeds; asked for #{index}")
        return self.start + index


_RANGES = {
    r.name: r
    for r in (
        SeedRange("test", 0, 1_000_000),  # unit tests, benchmarks, demonstrations, `tasks show`
        SeedRange("heldout", 1_000_000, 2_000_000),  # the fixed set for held-out action error
        SeedRange("tune", 2_000_000, 3_000_000),  # closed-loop scores while settings are being chosen
        SeedRange("eval", 3_000_000, 10_000_000),  # closed-loop scores that are reported; nothing is chosen by them
        SeedRange("train", 100_000_000, 2_000_000_000),  # what generation may draw
    )
}


SCORING = ("eval", "tune")  # the ranges that closed-loop scores may use; reported ones use the first


def seed_range(name: str) -> SeedRange:
    """The range called `name` (`test`, `heldout`, `tune`, `eval`, `train`). Raises `KeyError` otherwise."""
    return _RANGES[name]
