"""A pool of simulator processes: hands out recipes, replaces the dead, the hung and the old.

The pool belongs to one thread and is driven by `poll()`. Every recipe ends in exactly one of: a report
(accepted, or rejected by reason), or a loss with its process, which is counted as a fault (`actor_died`,
`actor_hung`). The recipe that the process was simulating is quarantined: it may be what took the process down.
Recipes that it had not begun go to other processes.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle

from embodichain.actors.config import PoolConfig
from embodichain.actors.quarantine import Quarantine
from embodichain.actors.worker import CALLS_AT_ONCE, WorkReport
from embodichain.contracts import Recipe

RECIPES_IN_FLIGHT = CALLS_AT_ONCE + 1  # per actor: those it works on, and one waiting, so that it never idles


@dataclass(kw_only=True)
class PoolCounts:
    """Everything the pool has counted; plain data, saved with the run.

    `cpu_s` is the processes' processor time, their start included, up to the last report of each.
    `rejected` and `faults` count by reason; `tasks` holds `generated`, `accepted` and `rejected` of each task.
    """

    generated: int = 0
    accepted: int = 0
    accepted_pairs: int = 0
    replay_checked: int = 0
    recycled: int = 0
    busy_s: float = 0.0
    idle_s: float = 0.0
    cpu_s: float = 0.0
    rejected: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    recovery_s: dict[str, list[float]] = field(default_factory=dict)

    def add(self, report: WorkReport) -> None:
        """Count one finished recipe."""
        self.generated += 1
        self.accepted += report.accepted
        self.accepted_pairs += report.pairs if report.accepted else 0
        self.replay_checked += report.replayed
        self.busy_s += report.busy_s
        self.idle_s += report.idle_s
        self.cpu_s += report.cpu_s
        self.rejected.update(report.reasons)
        task = self.tasks.setdefault(report.recipe.task, {"generated": 0, "accepted": 0, "rejected": {}})
        task["generated"] += 1
        task["accepted"] += int(report.accepted)
        for reason in report.reasons:
            task["rejected"][reason] = task["rejected"].get(reason, 0) + 1

    @property
    def idle_fraction(self) -> float:
        """Share of the actors' time in which no simulator ran: the replay was full, or no recipe had come."""
        total = self.busy_s + self.idle_s
        return self.idle_s / total if total > 0 else 0.0


@dataclass(kw_only=True)
class _Slot:
    """One place in the pool and the process that fills it now."""

    actor: ActorHandle
    ready: ray.ObjectRef | None
    since: float  # when it started, or last finished something
    held: bool = False  # the replay has held producers back since then
    made: int = 0
    in_flight: dict[ray.ObjectRef, Recipe] = field(default_factory=dict)
    down_since: float | None = None
    fault: str = ""


class ActorPool:
    """Keeps `config.count` simulator processes busy.

    Args:
        config: settings.
        start_actor: makes one `SimActor`.
        next_recipe: the stream of recipes; None once there are no more.
        replay_open: False while producers are held back on purpose; then nothing counts as hung.
        recorder: the `FlightRecorder` at which the processes mark what they simulate.
        quarantine: recipes that are never handed out.
    """

    def __init__(
        self,
        config: PoolConfig,
        start_actor: Callable[[], ActorHandle],
        next_recipe: Callable[[], Recipe | None],
        replay_open: Callable[[], bool],
        recorder: ActorHandle,
        quarantine: Quarantine,
        counts: PoolCounts | None = None,
    ) -> None:
        self.config = config
        self.counts = counts or PoolCounts()
        self._start_actor, self._next_recipe, self._replay_open = start_actor, next_recipe, replay_open
        self._recorder, self.quarantine = recorder, quarantine
        self._returned: deque[Recipe] = deque()  # lost with a process that had not begun them
        self._start_failures = 0
        self._dry = False
        self._slots = [self._new_slot() for _ in range(config.count)]

    def poll(self, timeout_s: float = 0.0) -> list[WorkReport]:
        """Collect what is finished, hand out recipes, replace what needs replacing.

        Waits up to `timeout_s` for something to finish. Raises `RuntimeError` if simulators keep failing
        to start, with the last error.
        """
        waiting = [ref for slot in self._slots for ref in (slot.in_flight or ([slot.ready] if slot.ready else []))]
        if waiting:
            ray.wait(waiting, num_returns=1, timeout=timeout_s)
        reports = []
        for slot in self._slots:
            reports.extend(self._poll_slot(slot))
        return reports

    @property
    def exhausted(self) -> bool:
        """Whether the stream has ended and every recipe is done with."""
        return self._dry and not self._returned and not any(slot.in_flight for slot in self._slots)

    def stop(self) -> None:
        """Kill every process. Recipes in flight are dropped and not counted."""
        for slot in self._slots:
            ray.kill(slot.actor, no_restart=True)
        self._slots = []

    def actors(self) -> list[ActorHandle]:
        """The present processes (for tests that kill them)."""
        return [slot.actor for slot in self._slots]

    def outstanding(self) -> list[Recipe]:
        """Recipes that are with a process and not reported yet, or wait for another one."""
        return [recipe for slot in self._slots for recipe in slot.in_flight.values()] + list(self._returned)

    def _new_slot(self) -> _Slot:
        actor = self._start_actor()
        return _Slot(actor=actor, ready=actor.ready.remote(), since=time.monotonic())

    def _poll_slot(self, slot: _Slot) -> list[WorkReport]:
        if slot.ready is not None and not self._finish_start(slot):
            return []
        reports = self._collect(slot)
        if slot.ready is not None:  # the process died and was replaced while collecting
            return reports
        slot.held = slot.held or not self._replay_open()
        if slot.in_flight and time.monotonic() - slot.since > self.config.hang_timeout_s:
            if self._hangs(slot):
                self._replace(slot, "actor_hung")
                return reports
            slot.since, slot.held = time.monotonic(), False
        if slot.made >= self.config.episodes_per_process:
            if not slot.in_flight:
                self.counts.recycled += 1
                self._replace(slot, "")
            return reports
        while len(slot.in_flight) < RECIPES_IN_FLIGHT and (recipe := self._draw()) is not None:
            slot.in_flight[slot.actor.produce.remote(recipe)] = recipe
            slot.made += 1
        return reports

    def _hangs(self, slot: _Slot) -> bool:
        """Whether a process that has not answered for long does not just wait for room in the replay."""
        if not slot.held:
            return True
        recipes = [recipe.id for recipe in slot.in_flight.values()]
        longest: ray.ObjectRef[float] = self._recorder.longest_s.remote(recipes)
        return ray.get(longest) > self.config.hang_timeout_s

    def _draw(self) -> Recipe | None:
        """The next recipe that is not in quarantine; None if there is none."""
        while True:
            recipe = self._returned.popleft() if self._returned else self._next_recipe()
            self._dry = recipe is None
            if recipe is None or recipe not in self.quarantine:
                return recipe

    def _finish_start(self, slot: _Slot) -> bool:
        """True once the slot's process is up."""
        assert slot.ready is not None
        done, _ = ray.wait([slot.ready], timeout=0)
        if not done:
            if time.monotonic() - slot.since > self.config.start_timeout_s:
                self._count_start_failure(f"no answer within {self.config.start_timeout_s:g} s")
                self._replace(slot, "actor_start")
            return False
        try:
            ray.get(slot.ready)
        except ray.exceptions.RayError as error:
            self._count_start_failure(str(error).strip().splitlines()[-1])
            self._replace(slot, "actor_start")
            return False
        self._start_failures = 0
        now = time.monotonic()
        if slot.down_since is not None and slot.fault:
            self.counts.recovery_s.setdefault(slot.fault, []).append(now - slot.down_since)
        slot.ready, slot.since, slot.down_since, slot.fault = None, now, None, ""
        return True

    def _collect(self, slot: _Slot) -> list[WorkReport]:
        reports: list[WorkReport] = []
        done, _ = (
            ray.wait(list(slot.in_flight), num_returns=len(slot.in_flight), timeout=0) if slot.in_flight else ([], [])
        )
        died = False
        for ref in done:
            try:
                report = ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                # a bug or a bad scene: the process is alive, the recipe is rejected under the error's name
                report = WorkReport(
                    recipe=slot.in_flight[ref],
                    accepted=False,
                    reasons=(f"error_{type(error.cause).__name__}",),
                    pairs=0,
                )
            except ray.exceptions.RayError:
                died = True  # other recipes of this process may have been finished before
                continue
            del slot.in_flight[ref]
            slot.since, slot.held = time.monotonic(), False
            self.counts.add(report)
            reports.append(report)
        if died:
            self._replace(slot, "actor_died")
        return reports

    def _count_start_failure(self, why: str) -> None:
        self._start_failures += 1
        if self._start_failures >= self.config.max_start_failures:
            raise RuntimeError(f"{self._start_failures} simulator processes in a row failed to start; the last: {why}")

    def _replace(self, slot: _Slot, fault: str) -> None:
        if fault:
            self.counts.faults[fault] += 1
        ray.kill(slot.actor, no_restart=True)
        self._settle(list(slot.in_flight.values()), fault)
        fresh = self._new_slot()
        slot.actor, slot.ready, slot.since = fresh.actor, fresh.ready, fresh.since
        slot.made, slot.in_flight, slot.held = 0, {}, False
        slot.down_since, slot.fault = time.monotonic(), fault

    def _settle(self, lost: list[Recipe], fault: str) -> None:
        """Say what becomes of recipes lost with a process: quarantine, another try, or (already simulated) nothing.

        A simulated one was on its way to the replay and may have arrived there, so it is not made again.
        """
        if not lost:
            return
        states: list[str] = ray.get(self._recorder.states.remote([recipe.id for recipe in lost]))
        for recipe, state in zip(lost, states, strict=True):
            if state == "simulating":
                self.quarantine.add(recipe, fault)
            elif state == "waiting":
                self._returned.append(recipe)
