"""The order of things in a sweep, on fake cells: kills, failures, lost machines, a stop in the middle."""

from functools import partial
from pathlib import Path

import pytest

from embodichain.app.sweep.process import Job, Outcome
from embodichain.app.sweep.schedule import LOST_ATTEMPTS, Event, Item, Schedule, side_by_side


class FakeAttempt:
    """Ends after `polls` looks, with `outcome`; an interrupt ends it at the next look."""

    def __init__(self, outcome: Outcome, polls: int):
        self.outcome, self.polls = outcome, polls
        self.interrupted = self.killed = False

    def poll(self):
        self.polls -= 1
        return self.outcome if self.polls <= 0 or self.interrupted else None

    def interrupt(self):
        self.interrupted = True

    def kill(self):
        self.killed = True


class FakeRunner:
    """Cells by name -> outcomes of their attempts, one after the other; the last one is repeated."""

    def __init__(self, slots: int = 1, polls: int = 2, **outcomes: list[Outcome]):
        self.slots = self.width = slots
        self.polls, self.outcomes = polls, outcomes
        self.started: list[str] = []
        self.most = 0
        self.attempts: list[FakeAttempt] = []

    def start(self, job: Job):
        tried = self.started.count(job.name)
        self.started.append(job.name)
        outcomes = self.outcomes.get(job.name, [Outcome(seconds=1.0)])
        self.attempts.append(FakeAttempt(outcomes[min(tried, len(outcomes) - 1)], self.polls))
        self.most = max(self.most, sum(each.polls > 0 for each in self.attempts))
        return self.attempts[-1]


def items(*names: str, finished=lambda: "") -> list[Item]:
    def job(name: str) -> Job:
        return Job(name=name, arguments=(), log=Path("unused"))

    return [Item(name=name, minutes=1.0, prepare=partial(job, name), finished=finished) for name in names]


def run(runner: FakeRunner, wanted: list[Item], stop=lambda: False) -> tuple[bool, list[Event]]:
    events: list[Event] = []
    whole = Schedule(wanted, runner, events.append, stop, sleep=lambda: None).run()
    return whole, events


def ends(events: list[Event]) -> dict[str, str]:
    return {event.name: event.what for event in events if event.what != "started"}


def test_cells_run_in_order_and_no_more_at_a_time_than_there_are_slots():
    runner = FakeRunner(slots=2, polls=3)
    whole, events = run(runner, items("a", "b", "c", "d"))
    assert whole
    assert runner.started == ["a", "b", "c", "d"]
    assert runner.most == 2
    assert set(ends(events).values()) == {"finished"}


def test_a_failed_cell_is_recorded_with_its_reason_and_the_others_go_on():
    runner = FakeRunner(b=[Outcome(reason="exit code 1: no plan")])
    whole, events = run(runner, items("a", "b", "c"))
    assert whole
    assert ends(events) == {"a": "finished", "b": "failed", "c": "finished"}
    assert [event.reason for event in events if event.what == "failed"] == ["exit code 1: no plan"]
    assert runner.started.count("b") == 1  # a cell that crashes is not tried again by itself


def test_a_process_that_ended_well_without_a_result_is_a_failure():
    _, events = run(FakeRunner(), items("a", finished=lambda: "ended after 3 of 9 steps"))
    assert (events[-1].what, events[-1].reason) == ("failed", "ended after 3 of 9 steps")


def test_a_cell_whose_machine_vanished_is_put_behind_the_others_and_done():
    gone = Outcome(reason="node died", lost=True)
    runner = FakeRunner(a=[gone, Outcome()])
    whole, events = run(runner, items("a", "b"))
    assert whole
    assert runner.started == ["a", "b", "a"]
    assert [event.what for event in events if event.name == "a"] == ["started", "lost", "started", "finished"]


def test_a_cell_whose_machines_keep_vanishing_is_given_up():
    runner = FakeRunner(a=[Outcome(reason="node died", lost=True)])
    _, events = run(runner, items("a"))
    assert runner.started.count("a") == LOST_ATTEMPTS + 1
    assert (events[-1].what, events[-1].reason) == ("failed", "node died")


def test_a_stop_interrupts_what_runs_and_starts_nothing_more():
    runner = FakeRunner(polls=10_000)
    whole, events = run(runner, items("a", "b"), stop=lambda: len(runner.started) == 1)
    assert not whole
    assert runner.started == ["a"]
    assert runner.attempts[0].interrupted
    assert not runner.attempts[0].killed
    assert ends(events) == {"a": "interrupted"}


def test_what_waits_at_the_cluster_is_not_taken_for_running(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("embodichain.app.sweep.schedule.time.monotonic", lambda: clock[0])
    runner = FakeRunner(slots=100, polls=10_000)
    runner.width = 1
    left: list[float] = []

    def sleep():
        clock[0] += 45.0
        left.append(schedule.seconds_left())

    schedule = Schedule(items("a", "b", "c"), runner, lambda _: None, lambda: clock[0] > 100, sleep)
    schedule.run()
    assert left[0] == 60 - 45 + 2 * 60.0


def test_time_left_follows_what_finished_cells_took():
    runner = FakeRunner(a=[Outcome(seconds=120.0)])  # expected: 60
    wanted = items("a", "b", "c")
    left: list[float] = []
    schedule = Schedule(wanted, runner, lambda event: left.append(schedule.seconds_left()), lambda: False, lambda: None)
    schedule.run()
    first_end = left[1]
    assert first_end == 2 * 120.0  # b and c, each twice as long as expected
    assert left[-1] == 0.0


def test_side_by_side_is_no_shorter_than_the_longest():
    assert side_by_side([24.0], 2) == 24.0
    assert side_by_side([3.0] * 4, 2) == 6.0
    assert side_by_side([], 2) == 0.0


def test_an_error_of_the_sweep_itself_leaves_no_cell_behind():
    runner = FakeRunner(polls=10_000)

    def tell(event):
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk is full"):
        Schedule(items("a"), runner, tell, lambda: False, lambda: None).run()
    assert runner.attempts[0].killed
