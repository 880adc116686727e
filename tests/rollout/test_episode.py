"""Recipe -> episode on real physics: contracts, verdicts, exactness."""

from dataclasses import replace

import numpy as np
import pytest

from embodichain.contracts import Recipe, UnifiedAction
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions, compare_episodes, make_episode
from tasks.base import ExpertPlan, PlanFailure
from tasks.registry import slots, task_names
from tasks.session import TaskSession

OPTIONS = RolloutOptions(tau=8)


@pytest.fixture(scope="module")
def session():
    session = TaskSession(render=None)
    yield session
    session.close()


@pytest.mark.parametrize("task", task_names())
def test_an_episode_keeps_the_contract(session, task):
    encoder = StateEncoder(**slots([task]))
    episode, verdict, report = make_episode(Recipe(task=task, seed=3), session, encoder, OPTIONS)
    assert verdict.accepted, verdict.reasons
    assert episode is not None
    episode.check()
    assert episode.pairs % OPTIONS.tau == 0
    assert episode.tokens is not None
    assert len(episode.tokens) == episode.pairs + 1
    assert episode.instruction
    assert min(report.reset_s, report.plan_s, report.simulate_s, report.encode_s) > 0


def test_the_same_recipe_gives_the_same_bits_after_other_episodes(session):
    recipe = Recipe(task="pick_place", seed=5)
    first, _, _ = make_episode(recipe, session, StateEncoder(), OPTIONS)
    make_episode(Recipe(task="two_arm_lift", seed=1), session, StateEncoder(), OPTIONS)
    again, _, _ = make_episode(recipe, session, StateEncoder(), OPTIONS)
    assert first is not None
    assert again is not None
    assert compare_episodes(first, again) == []


def test_another_seed_gives_another_episode_and_the_difference_is_named(session):
    first, _, _ = make_episode(Recipe(task="pick_place", seed=5), session, StateEncoder(), OPTIONS)
    other, _, _ = make_episode(Recipe(task="pick_place", seed=6), session, StateEncoder(), OPTIONS)
    assert first is not None
    assert other is not None
    assert "action" in {difference.field for difference in compare_episodes(first, other)}
    nudged = replace(first, proprio=first.proprio + np.float32(1e-6))
    assert [difference.field for difference in compare_episodes(first, nudged)] == ["proprio"]


def test_the_stored_action_is_the_target_and_the_executed_one_is_disturbed(session):
    seeds = range(10, 16)
    episodes = [
        make_episode(Recipe(task="pick_place", seed=seed), session, StateEncoder(), OPTIONS)[0] for seed in seeds
    ]
    idle = []
    for episode in episodes:
        assert episode is not None
        # the arm that the task does not use is told to stand still; only the disturbance moves it
        joints = [np.ptp(episode.action[:, UnifiedAction.joints(arm)], axis=0).max() for arm in (0, 1)]
        arm = int(np.argmin(joints))
        assert joints[arm] < 1e-4
        idle.append(np.ptp(episode.proprio[5:, UnifiedAction.joints(arm)], axis=0).max())
    assert max(idle) > 0.005
    assert min(idle) < 0.005


class _NoPlan(TaskSession):
    def expert(self) -> ExpertPlan:
        raise PlanFailure("ik_unreachable")


class _StandsStill(TaskSession):
    def expert(self) -> ExpertPlan:
        plan = super().expert()
        return replace(plan, action=np.repeat(plan.action[:1], len(plan.action), axis=0))


class _ForgetsItself(TaskSession):
    def sim_state(self) -> np.ndarray:
        return np.full_like(super().sim_state(), np.nan)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [(_NoPlan, "plan_ik_unreachable"), (_StandsStill, "no_success"), (_ForgetsItself, "not_finite")],
)
def test_what_physics_does_not_confirm_is_rejected_by_name(broken, reason):
    session = broken(render=None)
    _, verdict, _ = make_episode(Recipe(task="pick_place", seed=3), session, StateEncoder(), OPTIONS)
    session.close()
    assert not verdict.accepted
    assert reason in verdict.reasons
