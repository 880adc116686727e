"""Who waits for whom, on a made-up robot that writes down what it is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embodichain.contracts import ACTION_DIM, Observation, PolicyInput, Work
from embodichain.evaluation.realtime import Mind, NotFinite, Robot, live
from embodichain.evaluation.timing import Stopwatch, Timing
from tasks.base import TaskStatus

REPLAN, CHUNK = 4, 8


def observation(step: int) -> Observation:
    """Whose first entry of proprioception is the time."""
    proprio = np.full(ACTION_DIM, step, dtype=np.float32)
    nothing = np.zeros((0, 7), np.float32)
    return Observation(
        proprio=proprio, object_pose=nothing, object_size=nothing[:, :3], object_grasp=np.zeros((0, 2, 3), np.float32),
        goal_pose=nothing, goal_size=nothing[:, :3], tool_pose=np.zeros((2, 7), np.float32),
    )  # fmt: skip


class Diary:
    """A simulator that remembers actions; done after `until` steps."""

    control_hz = 20.0

    def __init__(self, until: int = 10**6) -> None:
        self.played: list[np.ndarray] = []
        self._until = until

    def step(self, action: np.ndarray) -> Observation:
        self.played.append(action)
        return observation(len(self.played))

    def status(self) -> TaskStatus:
        return TaskStatus(success=len(self.played) >= self._until, progress=0.5)


class NoEncoder:
    id, needs_rgb = "", False

    def token_mask(self, observation: Observation) -> np.ndarray:
        return np.ones(1, dtype=bool)


class Clockwork:
    """Its chunk from what it sees at time t says (t, t), (t, t + 1), ...: when it was decided, and when it is due."""

    replan, encoder_id, needs_rgb = REPLAN, "", False
    work = Work(whole=4, ahead=3, blocking=2)

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def reset(self, instruction: str) -> None:
        self.calls = []

    def step(self, seen: PolicyInput) -> np.ndarray:
        now = float(seen.observation.proprio[0])
        self.calls.append(("step", now, len(seen.executed)))
        chunk = np.zeros((CHUNK, ACTION_DIM), np.float32)
        chunk[:, 0], chunk[:, 1] = now, now + np.arange(CHUNK)
        return chunk

    def speculate(self) -> None:
        self.calls.append("speculate")


def act(
    timing: Timing, limit: int, policy: Any = None, clock: Any = None
) -> tuple[list[tuple[int, int]], Robot, Mind, Any]:
    """What was played, as (decided at, due at), and who played it."""
    diary, policy = Diary(), policy or Clockwork()
    robot = Robot(session=diary, observation=observation(0), limit=limit)  # type: ignore[arg-type]
    watch = Stopwatch(timing, 20.0, clock) if clock else Stopwatch(timing, 20.0)
    mind = Mind(policy, NoEncoder(), robot, watch)  # type: ignore[arg-type]
    live(robot, mind, REPLAN, timing)
    return [(int(a[0]), int(a[1])) for a in diary.played], robot, mind, policy


def due(decided: int, first: int, count: int) -> list[tuple[int, int]]:
    return [(decided, decided + first + i) for i in range(count)]


def test_sync_without_latency_plays_every_chunks_beginning():
    played, robot, mind, policy = act(Timing(), limit=8)
    assert played == due(0, 0, 4) + due(4, 0, 4)
    assert robot.held == 0
    assert mind.waits == [0, 0]
    assert policy.calls == [("step", 0.0, 0), ("step", 4.0, 4)]


def test_sync_holds_the_last_target_while_it_thinks():
    played, robot, mind, policy = act(Timing(latency_steps=2.0), limit=12)
    assert played == [(0, 0)] * 2 + due(0, 0, 4) + [(0, 3)] * 2 + due(6, 0, 4)
    assert robot.held == 4
    assert mind.waits == [2, 2]
    # what the robot was told since the policy looked last, holding included
    assert policy.calls == [("step", 0.0, 0), ("step", 6.0, 6)]


def test_sai_waits_for_its_share_only_and_speculates_while_the_chunk_plays():
    played, robot, mind, policy = act(Timing(mode="sai", latency_steps=4.0), limit=4 + 4 + 2 + 4)
    assert played == [(0, 0)] * 4 + due(0, 0, 4) + [(0, 3)] * 2 + due(8, 0, 4)
    assert mind.waits == [4, 2]  # the first chunk has nothing to speculate on
    assert robot.held == 6
    assert policy.calls == [("step", 0.0, 0), "speculate", ("step", 8.0, 8), "speculate"]


def test_a_speculation_that_is_not_finished_in_time_is_waited_for():
    _, _, mind, _ = act(Timing(mode="sai", latency_steps=8.0), limit=8 + 4 + 2 + 4 + 4)
    assert mind.waits == [8, 4 + (6 - REPLAN)]


def test_naive_async_never_stops_and_its_actions_are_old_or_too_late():
    played, robot, mind, _ = act(Timing(mode="naive_async", latency_steps=2.0), limit=2 + 12)
    # at step 2 the first chunk starts, and the second one is computed from what is seen then
    assert played == [(0, 0)] * 2 + due(0, 0, 4) + due(2, 4, 4) + due(6, 4, 4)
    assert robot.held == 2
    assert mind.waits == [2, 4, 4, 4]
    played, _, _, _ = act(Timing(mode="naive_async", latency_steps=2.0, drop_stale=False), limit=2 + 12)
    assert played == [(0, 0)] * 2 + due(0, 0, 4) + due(2, 0, 4) + due(6, 0, 4)


def test_naive_async_plays_on_until_its_chunk_is_used_up_and_then_holds():
    played, robot, _, _ = act(Timing(mode="naive_async", latency_steps=6.0), limit=6 + 6 + 6)
    assert played == [(0, 0)] * 6 + due(0, 0, 6) + due(6, 6, 2) + [(6, 13)] * 4
    assert robot.held == 10


def test_fractions_of_control_steps_are_rounded_up():
    _, _, mind, _ = act(Timing(mode="sai", latency_steps=3.0), limit=3 + 4 + 2 + 4)
    assert mind.waits == [3, 2]


def test_measured_latencies_are_those_of_the_clock():
    ticks = iter(np.arange(100) * 0.12)  # every call takes 0.12 s: 2.4 control steps
    _, _, mind, _ = act(Timing(latency_steps=None), limit=3 + 4, clock=lambda: next(ticks))
    assert mind.waits == [3]
    assert mind.seconds == pytest.approx([0.12])


def test_the_same_twice():
    for timing in (Timing(mode="sai", latency_steps=5.0), Timing(mode="naive_async", latency_steps=5.0)):
        assert act(timing, limit=60)[0] == act(timing, limit=60)[0]


def test_success_must_hold_and_ends_the_episode():
    diary, policy = Diary(until=3), Clockwork()
    robot = Robot(session=diary, observation=observation(0), limit=100)  # type: ignore[arg-type]
    mind = Mind(policy, NoEncoder(), robot, Stopwatch(Timing(), 20.0))  # type: ignore[arg-type]
    live(robot, mind, REPLAN, Timing())
    assert (robot.success, robot.steps) == (True, 12)


def test_a_non_finite_chunk_is_not_played():
    class Broken(Clockwork):
        def step(self, seen: PolicyInput) -> np.ndarray:
            return np.full((CHUNK, ACTION_DIM), np.nan, np.float32)

    with pytest.raises(NotFinite):
        act(Timing(), limit=8, policy=Broken())


@pytest.mark.parametrize(
    ("changes", "match"),
    [({"mode": "later"}, "mode=later: expected one of sync"), ({"latency_steps": -1.0}, "at least 0")],
)
def test_impossible_timings_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        Timing(**changes)
