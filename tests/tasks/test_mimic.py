"""Demonstrations carried over to other scenes: verified by physics, remade from the recipe alone."""

from __future__ import annotations

import pytest

from embodichain.contracts import Recipe
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions, compare_episodes, make_episode
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


def test_what_cannot_be_imitated_is_named(session) -> None:
    with pytest.raises(ValueError, match="push_bar"):
        session.reset(Recipe(task="push_bar", seed=0, source="mimic:1"))
    with pytest.raises(ValueError, match="source"):
        Recipe(task="pick_place", seed=0, source="mimic:")
