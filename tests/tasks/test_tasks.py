"""Tasks: experts solve them, predicates cannot be cheated, draws follow the recipe, replays are exact."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from embodichain.contracts import ACTION_DIM, Recipe, UnifiedAction
from envs import PandaKinematics
from tasks import ExpertPlan, TaskSession, get_task, sim_hash, task_info, task_names
from tasks.sampling import draw_scene

HOLD = 10


def execute(session: TaskSession, action: np.ndarray, settle: int = 30) -> bool:
    """Play actions, hold the last one; whether success then held for 10 control steps."""
    for row in action:
        session.step(row)
    held = 0
    for _ in range(settle):
        held = held + 1 if session.status().success else 0
        if held >= HOLD:
            return True
        session.step(action[-1])
    return False


Reset = Callable[..., ExpertPlan]  # the fixture of conftest.py


@pytest.mark.parametrize("task", task_names())
@pytest.mark.parametrize(("domain", "index"), [("clean", 0), ("default", 1), ("default", 2)])
def test_the_expert_succeeds_within_its_horizon(
    session: TaskSession, reset: Reset, task: str, domain: str, index: int
) -> None:
    plan = reset(task, index, domain)
    assert not session.status().success
    assert plan.segment_names == task_info(task).segments
    assert (np.diff(plan.segment_id) >= 0).all()
    assert len(plan.action) <= task_info(task).horizon
    assert execute(session, plan.action)
    assert session.status().progress == 1.0
    assert session.limits_ok()


@pytest.mark.parametrize("task", task_names())
def test_expert_actions_are_whole_and_smooth(session: TaskSession, reset: Reset, task: str) -> None:
    """Pose half = kinematics of the joint half; targets start where the arm is and never jump."""
    plan = reset(task, 3)
    kinematics = PandaKinematics()
    for arm in (0, 1):
        joints = plan.action[:, UnifiedAction.joints(arm)]
        np.testing.assert_allclose(plan.action[:, UnifiedAction.eef(arm)], kinematics.forward_many(joints), atol=1e-5)
        start = session.observe().proprio[UnifiedAction.joints(arm)]
        steps = np.abs(np.diff(np.concatenate([start[None], joints]), axis=0))
        assert steps.max() < 2.0 / session.control_hz
        assert (plan.action[:, UnifiedAction.eef(arm)][:, 3] >= 0).all()
    assert plan.action.shape[1] == ACTION_DIM


@pytest.mark.parametrize("task", task_names())
def test_doing_nothing_fails(session: TaskSession, reset: Reset, task: str) -> None:
    plan = reset(task, 0)
    still = np.repeat(plan.action[:1], 20, axis=0)
    still[:, UnifiedAction.joints(0)] = session.observe().proprio[UnifiedAction.joints(0)]
    still[:, UnifiedAction.joints(1)] = session.observe().proprio[UnifiedAction.joints(1)]
    assert not execute(session, still)
    assert session.status().progress < 0.5


def test_pick_place_needs_the_gripper(session: TaskSession, reset: Reset) -> None:
    plan = reset("pick_place", 0)
    action = plan.action.copy()
    action[:, [14, 29]] = 1.0
    assert not execute(session, action)


def test_pick_place_is_no_success_before_the_cube_is_let_go(session: TaskSession, reset: Reset) -> None:
    plan = reset("pick_place", 0)
    release = plan.segment_names.index("release")
    assert not execute(session, plan.action[plan.segment_id < release])
    assert session.status().progress > 0.5


def test_the_idle_arm_of_pick_place_never_moves_and_the_side_decides(session: TaskSession, reset: Reset) -> None:
    sides = set()
    for index in range(6):
        plan = reset("pick_place", index)
        left = session.observe().object_pose[0, 1] > 0
        assert left == (session.observe().goal_pose[0, 1] > 0)
        moved = [np.ptp(plan.action[:, UnifiedAction.joints(arm)], axis=0).max() > 0.05 for arm in (0, 1)]
        assert moved == [left, not left]
        sides.add(bool(left))
    assert sides == {True, False}


@pytest.mark.parametrize("arm", [0, 1])
def test_one_arm_alone_cannot_lift_the_tray(session: TaskSession, reset: Reset, arm: int) -> None:
    plan = reset("two_arm_lift", 1)
    action = plan.action.copy()
    action[:, UnifiedAction.gripper(1 - arm)] = 1.0
    assert not execute(session, action)
    assert session.status().progress < 0.75


def test_handover_must_pass_from_hand_to_hand_in_the_air(session: TaskSession, reset: Reset) -> None:
    """Without the right arm's grip the bar falls; put straight onto the disc by physics, it does not count."""
    plan = reset("handover", 1)
    action = plan.action.copy()
    action[:, UnifiedAction.gripper(1)] = 1.0
    assert not execute(session, action)
    reset("handover", 1)
    goal = session.observe().goal_pose[0]
    session.world.place_object(0, goal)
    still = np.repeat(plan.action[:1], 12, axis=0)
    assert not execute(session, still)
    assert np.linalg.norm(session.observe().object_pose[0, :2] - goal[:2]) < 0.01


def test_the_arms_never_touch_each_other(session: TaskSession, reset: Reset) -> None:
    for task in ("handover", "two_arm_lift"):
        plan = reset(task, 2)
        for row in plan.action:
            session.step(row)
            assert not session.world.arms_touch()


@pytest.mark.parametrize("task", task_names())
def test_draws_follow_the_recipe_alone(task: str) -> None:
    first, again, other = (draw_scene(get_task(task), seed, "default") for seed in (5, 5, 6))
    assert first == again
    assert first.spec != other.spec
    assert json.loads(json.dumps(first.draws)) == first.draws
    clean, next_clean = (draw_scene(get_task(task), seed, "clean") for seed in (5, 6))
    assert clean.spec.objects[0].mass == next_clean.spec.objects[0].mass


def test_unknown_names_are_refused_with_the_valid_ones(session: TaskSession) -> None:
    with pytest.raises(KeyError, match="pick_place"):
        session.reset(Recipe(task="juggle", seed=0))
    with pytest.raises(ValueError, match="default"):
        session.reset(Recipe(task="pick_place", seed=0, domain="moon"))
    with pytest.raises(ValueError, match="reset"):
        TaskSession().step(np.zeros(ACTION_DIM, dtype=np.float32))


def test_the_catalogue_holds_at_least_16_kinds_of_skill_sequences() -> None:
    """Of what is done, whatever it is done to: `reach lid` and `reach tray` are one skill."""
    kinds = {tuple(segment.split()[0] for segment in task_info(name).segments) for name in task_names()}
    assert len(kinds) >= 16


def test_every_scene_has_the_objects_and_goals_of_its_catalogue_entry(session: TaskSession) -> None:
    for task in task_names():
        observation, info = session.reset(Recipe(task=task, seed=3)), task_info(task)
        assert observation.object_pose.shape == (info.objects, 7)
        assert observation.goal_pose.shape == (info.goals, 7)
        assert observation.object_size.shape == (info.objects, 3)
        assert observation.object_grasp.shape == (info.objects, 2, 3)
        assert observation.goal_size.shape == (info.goals, 3)
        assert observation.rgb is None
        assert session.instruction
        assert {a.dtype for a in (observation.proprio, observation.object_pose)} == {np.dtype(np.float32)}


REPLAY = """
import hashlib, sys
from embodichain.contracts import Recipe
from tasks import TaskSession
session = TaskSession()
for text in reversed(sys.argv[1:]):
    digest = hashlib.sha256()
    session.reset(Recipe.from_json(text))
    for row in session.expert().action:
        session.step(row)
        digest.update(row.tobytes() + session.sim_state().tobytes() + session.observe().proprio.tobytes())
    print(digest.hexdigest())
"""


def test_a_fresh_process_replays_bit_for_bit_in_any_order(session: TaskSession) -> None:
    """This session has run other episodes before; the other process has not, and goes backwards."""
    recipes = [Recipe(task=task, seed=4, sim_hash=sim_hash()) for task in task_names()]
    digests = []
    for recipe in recipes:
        session.reset(recipe)
        digest = hashlib.sha256()
        for row in session.expert().action:
            session.step(row)
            digest.update(row.tobytes() + session.sim_state().tobytes() + session.observe().proprio.tobytes())
        digests.append(digest.hexdigest())
    command = [sys.executable, "-W", "ignore", "-c", REPLAY, *(r.to_json() for r in recipes)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert output[-len(digests) :] == digests[::-1]


def test_a_task_s_own_hash_leaves_the_files_of_the_others_out() -> None:
    own = {name: sim_hash(name) for name in task_names()}
    assert len({*own.values(), sim_hash()}) == len(own) + 1
