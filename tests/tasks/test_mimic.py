"""Demonstrations carried over to other scenes: verified by physics, remade from the recipe alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embodichain.contracts import Recipe
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions, compare_episodes, make_episode
from envs import PandaKinematics
from envs.world import DualArmWorld
from tasks.base import ExpertPlan, PlanFailure, TaskScene
from tasks.draws import Draws
from tasks.pick_place import PickPlace
from tasks.registry import slots
from tasks.session import TaskSession

OPTIONS = RolloutOptions()


@pytest.fixture(scope="module")
def session():
    session = TaskSession(render=None)
    yield session
    session.close()


def make(session: TaskSession, task: str, seed: int, source: str):
    recipe = Recipe(task=task, seed=seed, source=source)
    return make_episode(recipe, session, StateEncoder(**slots([task])), OPTIONS)


@pytest.mark.parametrize("task", ["two_arm_lift", "dual_place"])
def test_one_demonstration_solves_other_scenes(session, task) -> None:
    assert sum(make(session, task, seed, "mimic:0")[1].accepted for seed in range(100, 104)) >= 3


def test_an_imitation_is_no_expert_and_comes_out_the_same_in_a_fresh_session(session) -> None:
    first, verdict, _ = make(session, "dual_place", 101, "mimic:0")
    expert, _, _ = make(session, "dual_place", 101, "expert")
    fresh = TaskSession(render=None)
    again, verdict_again, _ = make(fresh, "dual_place", 101, "mimic:0")
    fresh.close()
    assert first is not None
    assert again is not None
    assert expert is not None
    assert first.instruction == expert.instruction
    assert first.action.shape != expert.action.shape or (first.action != expert.action).any()
    assert compare_episodes(first, again) == []
    assert verdict == verdict_again


def test_a_demonstration_is_replayed_in_its_own_scene(session) -> None:
    assert make(session, "two_arm_lift", 0, "mimic:0")[1].accepted


class _Lazy(PickPlace):
    """Its expert stands still, which is a plan, but none that succeeds."""

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        plan = super().plan(scene, world, kinematics)
        return replace(plan, action=np.repeat(plan.action[:1], len(plan.action), axis=0))


class _Clueless(PickPlace):
    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        raise PlanFailure("ik_unreachable")


@pytest.mark.parametrize("task", [_Lazy(), _Clueless()])
def test_what_imitates_a_failure_is_rejected_by_name(monkeypatch, task) -> None:
    session = TaskSession(render=None)
    monkeypatch.setattr("tasks.session.get_task", lambda name: task)
    episode, verdict, _ = make(session, "pick_place", 101, "mimic:0")
    session.close()
    assert episode is None
    assert verdict.reasons == ("plan_parent_failed",)


class _Other(PickPlace):
    """The cube lies further away, or is too heavy to lift."""

    def __init__(self, x: float = 0.0, times: float = 1.0) -> None:
        self._x, self._times = x, times

    def draw(self, draws: Draws) -> TaskScene:
        scene = super().draw(draws)
        cube = scene.spec.objects[0]
        pose = (cube.pose[0] + self._x, *cube.pose[1:])
        moved = replace(cube, pose=pose, mass=cube.mass * self._times)
        return replace(scene, spec=replace(scene.spec, objects=(moved,)))


@pytest.mark.parametrize(
    ("task", "reason"),
    [(_Other(x=1.2), "plan_ik_unreachable"), (_Other(times=1000.0), "no_success")],
)
def test_a_demonstration_that_does_not_fit_the_scene_is_rejected_by_name(monkeypatch, task, reason) -> None:
    session = TaskSession(render=None)
    assert make(session, "pick_place", 0, "mimic:0")[1].accepted
    monkeypatch.setattr("tasks.session.get_task", lambda name: task)  # the demonstration is remembered
    _, verdict, _ = make(session, "pick_place", 0, "mimic:0")
    session.close()
    assert reason in verdict.reasons


def test_what_cannot_be_imitated_is_named(session) -> None:
    with pytest.raises(ValueError, match="push_bar"):
        session.reset(Recipe(task="push_bar", seed=0, source="mimic:1"))
    with pytest.raises(ValueError, match="source"):
        Recipe(task="pick_place", seed=0, source="mimic:")
