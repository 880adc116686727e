"""Which cell runs when: each until it is finished, failed or interrupted. Owns: attempts and time left.

Knows cells by name and nothing of what they do, so that a test runs it on fakes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from embodichain.app.sweep.process import Attempt, Job

LOST_ATTEMPTS = 5  # a cell whose machine vanished so often is given up
STOP_SECONDS = 90.0


class Runner(Protocol):
    """Where cells run. `slots`: how many it takes at a time. `width`: how many of them run, by all that is known."""

    slots: int
    width: int

    def start(self, job: Job) -> Attempt:
        """Start one."""
        ...


@dataclass(kw_only=True)
class Item:
    """One cell to be run.

    Attributes:
        name: of it.
        minutes: expected.
        prepare: makes its job, called right before it starts; puts aside what an earlier attempt left.
        finished: whether its own results say so, and why not where its process ended well.
        lost: how often its machine vanished.
    """

    name: str
    minutes: float
    prepare: Callable[[], Job]
    finished: Callable[[], str]
    lost: int = 0


@dataclass(kw_only=True)
class _Running:
    item: Item
    attempt: Attempt
    since: float


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a cell: `started`, `finished`, `failed` (why), `lost` or `interrupted`."""

    what: str
    name: str
    seconds: float = 0.0
    reason: str = ""


class Schedule:
    """Runs items until all are done with, or a stop is asked for.

    Args:
        items: in the order in which they start.
        runner: where.
        tell: hears of every event, at once.
        stop: asked all the time; once true, what runs is asked to stop cleanly, and killed after `STOP_SECONDS`.
        sleep: between two looks.
    """

    def __init__(
        self,
        items: Sequence[Item],
        runner: Runner,
        tell: Callable[[Event], None],
        stop: Callable[[], bool],
        sleep: Callable[[], None] = lambda: time.sleep(0.2),
    ) -> None:
        self._waiting = deque(items)
        self._runner, self._tell, self._stop, self._sleep = runner, tell, stop, sleep
        self._running: list[_Running] = []
        self._expected = self._actual = 0.0  # seconds of finished items

    def run(self) -> bool:
        """Until nothing is left; False if it was stopped."""
        try:
            while self._waiting or self._running:
                if self._stop():
                    self._interrupt()
                    return False
                while self._waiting and len(self._running) < self._runner.slots:
                    self._start(self._waiting.popleft())
                self._sleep()
                self._collect()
            return True
        finally:
            for each in self._running:  # only after an error of our own
                each.attempt.kill()

    @property
    def running(self) -> list[str]:
        """Names of what runs now."""
        return [each.item.name for each in self._running]

    def seconds_left(self) -> float:
        """What the waiting and the running items are expected to take, by how long the finished ones took."""
        pace = self._actual / self._expected if self._expected else 1.0
        now = time.monotonic()
        active, queued = self._running[: self._runner.width], self._running[self._runner.width :]
        rest = [60 * pace * item.minutes for item in (*self._waiting, *(each.item for each in queued))]
        rest += [max(0.0, 60 * pace * each.item.minutes - (now - each.since)) for each in active]
        return side_by_side(rest, self._runner.width)

    def _start(self, item: Item) -> None:
        self._running.append(_Running(item=item, attempt=self._runner.start(item.prepare()), since=time.monotonic()))
        self._tell(Event(what="started", name=item.name))

    def _collect(self) -> None:
        for each in list(self._running):
            outcome = each.attempt.poll()
            if outcome is None:
                continue
            self._running.remove(each)
            seconds, item = outcome.seconds or time.monotonic() - each.since, each.item
            if len(self._running) >= self._runner.width:  # one that waited at Ray has room now
                self._running[self._runner.width - 1].since = time.monotonic()
            if outcome.lost and item.lost < LOST_ATTEMPTS:
                item.lost += 1
                self._waiting.append(item)
                self._tell(Event(what="lost", name=item.name, seconds=seconds, reason=outcome.reason))
                continue
            reason = outcome.reason or item.finished()
            if not reason:
                self._expected += 60 * item.minutes
                self._actual += seconds
            self._tell(Event(what="failed" if reason else "finished", name=item.name, seconds=seconds, reason=reason))

    def _interrupt(self) -> None:
        for each in self._running:
            each.attempt.interrupt()
        until = time.monotonic() + STOP_SECONDS
        while self._running:
            for each in list(self._running):
                late = time.monotonic() > until
                if late:
                    each.attempt.kill()
                if late or each.attempt.poll() is not None:
                    self._running.remove(each)
                    self._tell(Event(what="interrupted", name=each.item.name, seconds=time.monotonic() - each.since))
            self._sleep()


def side_by_side(durations: Sequence[float], width: int) -> float:
    """How long runs take, `width` at a time: no less than the longest of them."""
    return max(sum(durations) / width, max(durations, default=0.0))
