"""Which recipes are being simulated right now, known even after the process that did it is gone.

`FlightRecorder` is plain code; a run starts one as a Ray actor, every simulator process marks there what it begins
and ends, and the pool asks it when a process has died or hangs.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

import ray

KEPT_MARKS = 1000  # of ended simulations: far more than all processes of a run have in flight


class Marks(Protocol):
    """Where a worker says what it simulates."""

    def begin(self, recipe_id: str) -> None:
        """The simulation of this recipe starts now; returns once that is written down."""
        ...

    def end(self, recipe_id: str) -> None:
        """It is over, however it ended."""
        ...


class FlightRecorder:
    """Remembers for each recipe whether its simulation has begun, how long ago, and whether it is over."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()

    def begin(self, recipe_id: str) -> None:
        """See `Marks`."""
        self._ended.pop(recipe_id, None)
        self._begun[recipe_id] = time.monotonic()

    def end(self, recipe_id: str) -> None:
        """See `Marks`. The oldest of those that are over are forgotten; what is under way never is."""
        self._begun.pop(recipe_id, None)
        self._ended[recipe_id] = None
        self._ended.move_to_end(recipe_id)
        while len(self._ended) > KEPT_MARKS:
            self._ended.popitem(last=False)

    def states(self, recipe_ids: Sequence[str]) -> list[str]:
        """`waiting` (never begun), `simulating` or `simulated`, for each recipe."""
        return [
            "simulating" if each in self._begun else "simulated" if each in self._ended else "waiting"
            for each in recipe_ids
        ]

    def longest_s(self, recipe_ids: Sequence[str]) -> float:
        """Seconds since the first of those that are simulating began; 0 if none is."""
        now = time.monotonic()
        return max((now - self._begun[each] for each in recipe_ids if each in self._begun), default=0.0)


class RemoteMarks:
    """The worker's side of a recorder in another process. A mark outlives a crash in the next instruction."""

    def __init__(self, recorder: Any) -> None:
        self._recorder = recorder

    def begin(self, recipe_id: str) -> None:
        """See `Marks`; waits for the answer, about a millisecond."""
        ray.get(self._recorder.begin.remote(recipe_id))

    def end(self, recipe_id: str) -> None:
        """See `Marks`; waits for nothing."""
        self._recorder.end.remote(recipe_id)


def start_recorder() -> Any:
    """The recorder as a Ray actor; if it dies it comes back empty, and calls wait for it."""
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(FlightRecorder).remote()
