"""The task that needs memory: the wrong lane is lost for good, and nothing but the past tells which is right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tasks import ExpertPlan, TaskSession
from tasks.recall_lane import lane_of

Reset = Callable[..., ExpertPlan]  # the fixture of conftest.py


def play(session: TaskSession, action: np.ndarray, settle: int = 20) -> bool:
    """Play actions, then hold the last one; whether success was ever seen."""
    seen = False
    for row in (*action, *([action[-1]] * settle)):
        session.step(row)
        seen = seen or session.status().success
    return seen


def test_half_a_crossing_makes_progress_but_no_success(session: TaskSession, reset: Reset) -> None:
    plan = reset("recall_lane", 0)
    half = plan.action[plan.segment_id < plan.segment_names.index("reach home")]
    assert not play(session, half)
    assert 0.3 < session.status().progress < 1.0


def test_the_right_disc_counts_until_the_block_has_lain_on_the_wrong_one(session: TaskSession, reset: Reset) -> None:
    plan = reset("recall_lane", 1)
    observation = session.observe()
    start, goals = observation.object_pose[0].copy(), observation.goal_pose
    right = int(np.argmin([abs(np.sign(goal[0]) - np.sign(start[0])) for goal in goals]))
    still = np.asarray(observation.proprio)[None]
    lying = start.copy()
    lying[:2] = goals[right][:2]
    session.world.place_object(0, lying)
    assert play(session, still)
    lying[:2] = goals[1 - right][:2]
    session.world.place_object(0, lying)
    assert not play(session, still)
    lying[:2] = goals[right][:2]
    session.world.place_object(0, lying)
    assert not play(session, still)
    assert len(plan.action) < 300


def test_in_the_middle_both_lanes_look_alike(session: TaskSession, reset: Reset) -> None:
    """A block that was carried out from either lane waits in the same place."""
    places: dict[tuple[object, int], np.ndarray] = {}
    for index in range(20):
        plan = reset("recall_lane", index, "clean")
        key = (session.draws["side"], lane_of(session.scene))
        if key not in places:
            play(session, plan.action[plan.segment_id <= plan.segment_names.index("retreat out")], settle=20)
            places[key] = session.observe().object_pose[0][:2].copy()
    assert len(places) == 4
    for side in (-1, 1):
        assert np.linalg.norm(places[side, 0] - places[side, 1]) < 0.004


@pytest.mark.parametrize("index", [0, 2])
def test_the_expert_goes_on_from_the_middle(session: TaskSession, reset: Reset, index: int) -> None:
    plan = reset("recall_lane", index)
    half = plan.action[plan.segment_id < plan.segment_names.index("reach home")]
    play(session, half, settle=5)
    rest = session.expert()
    assert "reach out" not in rest.segment_names
    assert play(session, rest.action)
