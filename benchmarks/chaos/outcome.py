"""What the injections of one fault came to: seconds until the part worked again, what was lost, what was broken."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Tick = Callable[[], None]  # called after every injection


@dataclass(kw_only=True)
class Outcome:
    """All injections of one fault.

    Attributes:
        recovery_s: per injection, seconds from the fault until that kind of part did useful work again.
        lost: kind -> how many over all injections, zeros included: what was looked for and not lost.
        broken: promises that did not hold, in words; empty if all did.
    """

    recovery_s: list[float] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Outcome:
        """What `row` was made of."""
        return cls(recovery_s=list(row["recovery_s"]), lost=Counter(row["losses"]), broken=list(row["broke"]))

    def __add__(self, other: Outcome) -> Outcome:
        """Both, one after the other."""
        lost = Counter(self.lost)
        lost.update(other.lost)
        return Outcome(recovery_s=self.recovery_s + other.recovery_s, lost=lost, broken=self.broken + other.broken)

    def row(self, fault: str) -> dict[str, object]:
        """As the table shows it, with all that `from_row` needs. Raises `ValueError` without a single injection."""
        if not self.recovery_s:
            raise ValueError(f"fault {fault}: nothing was injected; expected at least one injection")
        return {
            "fault": fault,
            "times": len(self.recovery_s),
            "lost": ", ".join(f"{count} {kind}" for kind, count in self.lost.items()) or "nothing",
            "recovery_p50_s": statistics.median(self.recovery_s),
            "recovery_max_s": max(self.recovery_s),
            "broken": "; ".join(self.broken) or "nothing",
            "recovery_s": [round(seconds, 3) for seconds in self.recovery_s],
            "losses": dict(self.lost),
            "broke": self.broken,
        }
