"""One simulator process: makes episodes from recipes and appends the accepted ones to the replay.

`SimWorker` is plain code; `SimActor` is the Ray actor around it. The worker never chooses what to do:
recipes come from the pool, so that a recipe lost with a dead process is known to be lost.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from embodichain.actors.flight import FlightRecorder, Marks
from embodichain.contracts import Episode, Recipe
from embodichain.encoders import Encoder
from embodichain.rollout import RolloutOptions, RolloutReport, compare_episodes, make_episode
from tasks.session import TaskSession

APPEND_RETRY_S = 0.05
CALLS_AT_ONCE = 2


@dataclass(frozen=True, kw_only=True)
class WorkReport:
    """What became of one recipe.

    Attributes:
        recipe: the recipe.
        accepted: the episode passed every check and lies in the replay, or came too late for a static set.
        reasons: why not, by name; `replay_mismatch` if an exact replay of it differed.
        pairs: state-action pairs of the episode.
        busy_s: seconds spent simulating and encoding.
        idle_s: seconds that the simulator had stood still before: the replay was full, or no recipe had come.
        timing: where `busy_s` went.
        replayed: whether exact replay was checked on this recipe.
        cpu_s: processor time of the whole process since its last report, all its threads, its start included.
    """

    recipe: Recipe
    accepted: bool
    reasons: tuple[str, ...]
    pairs: int
    busy_s: float = 0.0
    idle_s: float = 0.0
    timing: RolloutReport = field(default_factory=RolloutReport)
    replayed: bool = False
    cpu_s: float = 0.0


class SimWorker:
    """Owns one simulator session and one encoder.

    `produce` may be called from two threads: while one hands its episode to the replay, the other simulates.

    Args:
        session: the simulator.
        encoder: runs here, once per frame, never on the learner's side.
        options: how episodes are recorded.
        append: hands an accepted episode to the replay; returns False while the replay is full.
        replay_fraction: share of accepted recipes that are made a second time and compared, in [0, 1].
        marks: told when the simulation of a recipe begins and ends.
    """

    def __init__(
        self,
        session: TaskSession,
        encoder: Encoder,
        options: RolloutOptions,
        append: Callable[[Episode], bool],
        replay_fraction: float = 0.0,
        marks: Marks | None = None,
    ) -> None:
        self._session, self._encoder, self._options, self._append = session, encoder, options, append
        self._replay_fraction = replay_fraction
        self._marks = marks or FlightRecorder()
        self._simulator = threading.Lock()
        self._idle_since: float | None = None

    def produce(self, recipe: Recipe) -> WorkReport:
        """Make one episode and, if physics accepts it, block until the replay has taken it."""
        with self._simulator:
            started = time.perf_counter()
            idle_s = 0.0 if self._idle_since is None else started - self._idle_since
            self._marks.begin(recipe.id)
            try:
                episode, report = self._simulate(recipe)
            finally:
                self._marks.end(recipe.id)
                ended = self._idle_since = time.perf_counter()
        if report.accepted and episode is not None:
            while not self._append(episode):
                time.sleep(APPEND_RETRY_S)
        return replace(report, busy_s=ended - started, idle_s=idle_s)

    def _simulate(self, recipe: Recipe) -> tuple[Episode | None, WorkReport]:
        """The episode, and all of its report but the times."""
        episode, verdict, timing = make_episode(recipe, self._session, self._encoder, self._options)
        reasons, accepted = verdict.reasons, verdict.accepted
        replayed = accepted and int(recipe.id, 16) % 10_000 < self._replay_fraction * 10_000
        if replayed and episode is not None:
            again, _, _ = make_episode(recipe, self._session, self._encoder, self._options)
            if again is None or compare_episodes(episode, again):
                accepted, reasons = False, ("replay_mismatch",)
        return episode, WorkReport(
            recipe=recipe,
            accepted=accepted,
            reasons=reasons,
            pairs=0 if episode is None else episode.pairs,
            timing=timing,
            replayed=replayed,
        )


class Producer(Protocol):
    """What a process of the pool does: a `SimWorker`, or an `ArchiveReader`."""

    def produce(self, recipe: Recipe) -> WorkReport:
        """Bring the recipe's episode into the replay, and say what became of it."""
        ...


class SimActor:
    """A simulator process of the pool (a Ray actor). It is never restarted in place: the pool makes a new one.

    Start it with `max_concurrency=CALLS_AT_ONCE`: one call simulates while the other's episode is handed over.
    """

    def __init__(self, build: Callable[[], Producer], niceness: int = 0) -> None:
        """`build` runs in the actor's process and imports the simulator there."""
        if niceness:
            os.nice(niceness)
        self._worker = build()
        self._made = 0
        self._counting, self._counted_s = threading.Lock(), 0.0

    def ready(self) -> int:
        """The process id, once the simulator is up."""
        return os.getpid()

    def produce(self, recipe: Recipe) -> WorkReport:
        """See `SimWorker.produce`."""
        self._made += 1
        report = self._worker.produce(recipe)
        with self._counting:
            now = time.process_time()
            cpu_s, self._counted_s = now - self._counted_s, now
        return replace(report, cpu_s=cpu_s)
