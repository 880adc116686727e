"""Closed-loop recovery on real physics: errors are seen, put right, and never become labels."""

from __future__ import annotations

import numpy as np
import pytest

from embodichain.contracts import Episode, Recipe, UnifiedAction, Verdict
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions, compare_episodes, make_episode
from tasks.base import ExpertPlan, PlanFailure
from tasks.mishaps import SLIP_STEPS, grips
from tasks.registry import slots, task_info
from tasks.session import TaskSession

DOMAIN = "default+recovery"


@pytest.fixture(scope="module")
def session():
    session = TaskSession(render=None)
    yield session
    session.close()


def make(session: TaskSession, task: str, seed: int, domain: str = DOMAIN) -> tuple[Episode, Verdict, dict]:
    recipe = Recipe(task=task, seed=seed, domain=domain)
    episode, verdict, _ = make_episode(recipe, session, StateEncoder(**slots([task])), RolloutOptions())
    assert episode is not None
    episode.check()
    drawn = episode.draws.get("recovery", {})
    assert isinstance(drawn, dict)
    return episode, verdict, drawn


def first_of(session: TaskSession, task: str, kind: str) -> tuple[Episode, Verdict, dict]:
    """The first seed with that mishap that was seen."""
    for seed in range(40):
        episode, verdict, drawn = make(session, task, seed)
        if drawn["injected"] and drawn["injected"]["kind"] == kind and drawn["detected"]:
            return episode, verdict, drawn
    raise AssertionError(f"no {kind} was seen in 40 seeds")


def test_a_slip_is_seen_recovered_and_not_imitated(session) -> None:
    episode, verdict, drawn = first_of(session, "pick_place", "slip")
    assert verdict.accepted
    alarm, injected = drawn["detected"][0], drawn["injected"]
    assert alarm["kind"] == "empty_hand"
    assert injected["step"] <= alarm["since"] <= injected["step"] + 2 < alarm["step"]
    assert episode.label_valid is not None
    wrong = np.flatnonzero(~episode.label_valid)
    assert set(wrong) == set(range(min(alarm["since"], injected["step"]), alarm["step"] + 1))
    arm = ("left", "right").index(injected["arm"])
    told = episode.action[injected["step"] : injected["step"] + SLIP_STEPS[0], UnifiedAction.gripper(arm)]
    assert (told == 1.0).all()  # where nothing is imitated, the episode tells what was done
    segments = task_info("pick_place").segments
    recover = np.flatnonzero(episode.segment_id == len(segments))
    assert recover.min() == alarm["step"] + 1
    assert episode.label_valid[recover].all()
    after = episode.segment_id[recover.max() + 1 :]
    assert [segments[i] for i in dict.fromkeys(after)] == list(segments)
    again, _, _ = make(session, "pick_place", episode.recipe.seed)
    assert compare_episodes(episode, again) == []
    assert again.draws == episode.draws


def test_a_pushed_object_is_seen_before_it_is_grasped(session) -> None:
    episode, verdict, drawn = first_of(session, "pick_place", "push")
    assert verdict.accepted
    assert drawn["detected"][0]["kind"] == "object_moved"
    assert drawn["injected"]["step"] <= drawn["detected"][0]["step"] <= drawn["injected"]["step"] + 3
    closing = np.flatnonzero(episode.action[:, [UnifiedAction.gripper(a).start for a in (0, 1)]].min(axis=1) == 0)
    assert closing[0] > drawn["detected"][0]["step"]


def test_a_missed_grasp_of_one_of_two_hands_is_recovered(session) -> None:
    _, verdict, drawn = first_of(session, "dual_place", "misgrasp")
    assert verdict.accepted
    assert drawn["detected"][0]["kind"] == "empty_hand"


def test_without_the_stage_nothing_goes_wrong_and_some_episodes_stay_clean(session) -> None:
    episode, _, drawn = make(session, "pick_place", 0, "default")
    assert drawn == {}
    assert episode.label_valid is not None
    assert episode.label_valid.all()
    injected = [make(session, "push_bar", seed)[2]["injected"] for seed in range(12)]
    assert 0 < sum(kind is None for kind in injected) < 12


def test_the_source_recovery_is_the_stage_whatever_the_domain_says(session) -> None:
    staged, _, drawn = first_of(session, "pick_place", "slip")
    recipe = Recipe(task="pick_place", seed=staged.recipe.seed, domain="default", source="recovery")
    episode, verdict, _ = make_episode(recipe, session, StateEncoder(**slots(["pick_place"])), RolloutOptions())
    assert verdict.accepted
    assert episode is not None
    assert episode.draws["recovery"] == drawn
    assert compare_episodes(episode, staged) == []


class _Forgetful(TaskSession):
    """Its first plan never closes a hand; asked again, it knows better, or nothing."""

    def __init__(self, *, learns: bool) -> None:
        super().__init__(render=None)
        self._learns, self._asked = learns, 0

    def expert(self) -> ExpertPlan:
        self._asked += 1
        if self._asked > 1 and not self._learns:
            raise PlanFailure("ik_unreachable")
        plan = super().expert()
        if self._asked == 1:
            for arm in (0, 1):
                plan.action[:, UnifiedAction.gripper(arm)] = 1.0
        return plan


@pytest.mark.parametrize("learns", [True, False])
def test_a_failure_that_nobody_injected_is_rescued_or_named(learns: bool) -> None:
    session = _Forgetful(learns=learns)
    episode, verdict, drawn = make(session, "pick_place", 1)
    session.close()
    assert drawn["injected"] is None
    assert [alarm["kind"] for alarm in drawn["detected"]] == ["not_done"]
    assert verdict.accepted == learns
    assert ("not_recoverable" in verdict.reasons) != learns
    assert episode.label_valid is not None
    assert not episode.label_valid.all()


def test_grips_are_read_from_any_plan(session) -> None:
    session.reset(Recipe(task="dual_place", seed=0))
    plan = session.expert()
    assert [(grip.arm, grip.item) for grip in grips(plan, session.world)] == [(0, 0), (1, 1)]
    session.reset(Recipe(task="push_bar", seed=0))
    assert grips(session.expert(), session.world) == []
