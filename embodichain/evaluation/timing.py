"""A logical clock for policies that take their time: every wait is a number of control steps, and the robot lives on.

Latencies are given (`latency_steps`), which is deterministic, or measured on the wall clock and rounded up to whole
control steps. While a chunk is being computed the robot holds its last target, or plays what it has.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from embodichain.contracts import MODES

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When chunks are computed and when they are played.

    Attributes:
        mode: `sync`: the robot holds still while a chunk is computed from what it sees. `naive_async`: the next chunk
            is computed from what is seen as the present one starts, and takes over when it is ready, at the end of the
            present one's share at the earliest. `sai`: the next chunk is begun on the imagined frame while the present
            one plays; the robot holds still only while it is corrected with the real one (arXiv 2604.16484).
        latency_steps: control steps that a whole chunk takes to compute, fractions allowed; parts of the work take
            their share (`Work`) and a wait is rounded up. None: as long as it takes on the wall clock.
        drop_stale: `naive_async` begins a chunk at the action that is due when it takes over, what was due before is
            dropped; else at its first action, however old.
    """

    mode: str = "sync"
    latency_steps: float | None = 0.0
    drop_stale: bool = True

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode={self.mode}: expected one of {', '.join(MODES)}")
        if self.latency_steps is not None and not 0 <= self.latency_steps < math.inf:
            raise ValueError(f"latency_steps={self.latency_steps}: expected at least 0, or none to measure it")


class Stopwatch:
    """Says how many whole control steps a call takes on the logical clock.

    Args:
        timing: given latencies, or measured ones.
        control_hz: control steps per second.
        clock: wall time, seconds.
    """

    def __init__(self, timing: Timing, control_hz: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._given, self._control_hz, self._clock = timing.latency_steps, control_hz, clock
        self.seconds = 0.0

    def time(self, call: Callable[[], T], share: float) -> tuple[T, int]:
        """The call's result and its control steps: `share` of the given latency of a whole chunk, or as measured.

        `seconds` then holds its wall time.
        """
        started = self._clock()
        result = call()
        self.seconds = self._clock() - started
        taken = self.seconds * self._control_hz if self._given is None else self._given * share
        return result, math.ceil(taken - 1e-9)
