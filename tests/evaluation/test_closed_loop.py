"""Closed-loop evaluation on real physics, with policies whose outcome is known."""

import numpy as np
import pytest

from embodichain.contracts import PolicyInput, seed_range
from embodichain.encoders import StateEncoder
from embodichain.evaluation.closed_loop import Trial, eval_recipes, expert_lengths, run_trial
from embodichain.evaluation.scores import score
from tasks.session import TaskSession


class PlayBack:
    """Plays a fixed action sequence, `replan` steps at a time."""

    encoder_id = StateEncoder().id
    needs_rgb = False
    replan = 8

    def __init__(self, actions: np.ndarray) -> None:
        self._actions, self._at = actions, 0

    def reset(self, instruction: str) -> None:
        assert instruction
        self._at = 0

    def step(self, seen: PolicyInput) -> np.ndarray:
        assert seen.tokens is not None
        assert seen.token_mask is not None
        assert seen.tokens.shape[0] == seen.token_mask.shape[0]
        rows = np.minimum(np.arange(self._at, self._at + 16), len(self._actions) - 1)
        self._at += self.replan
        return self._actions[rows]


@pytest.fixture(scope="module")
def session():
    session = TaskSession(render=None)
    yield session
    session.close()


@pytest.fixture(scope="module")
def trial(session):
    recipes = eval_recipes("pick_place", "default", range(3), "")
    lengths = expert_lengths(session, StateEncoder(), recipes, {})
    recipe = next(r for r in recipes if lengths[r.seed])
    return Trial(recipe=recipe, expert_steps=lengths[recipe.seed])


def expert_actions(session, trial):
    session.reset(trial.recipe)
    return session.expert().action


def test_the_experts_own_actions_succeed(session, trial):
    result = run_trial(session, StateEncoder(), PlayBack(expert_actions(session, trial)), trial, 2.0)
    assert result.success
    assert result.progress == 1.0
    assert result.steps <= trial.expert_steps + 20


def test_doing_nothing_fails_at_the_step_limit(session, trial):
    still = np.repeat(expert_actions(session, trial)[:1], 2, axis=0)
    result = run_trial(session, StateEncoder(), PlayBack(still), trial, 1.5)
    assert not result.success
    assert result.progress < 0.5
    assert result.steps == int(np.ceil(1.5 * trial.expert_steps))


def test_a_non_finite_action_ends_the_episode_as_a_failure(session, trial):
    result = run_trial(session, StateEncoder(), PlayBack(np.full((4, 30), np.nan, np.float32)), trial, 2.0)
    assert (result.success, result.finite, result.steps) == (False, False, 0)


def test_a_policy_of_another_encoder_is_refused(session, trial):
    policy = PlayBack(np.zeros((1, 30), np.float32))
    policy.encoder_id = "dinov3"
    with pytest.raises(ValueError, match="'dinov3'"):
        run_trial(session, StateEncoder(), policy, trial, 2.0)


def test_evaluation_seeds_are_never_training_seeds():
    seeds = [recipe.seed for recipe in eval_recipes("pick_place", "default", (0, 5, 6_999_999), "")]
    assert all(seed in seed_range("eval") and seed not in seed_range("train") for seed in seeds)


def test_known_lengths_are_not_computed_again(session):
    recipes = eval_recipes("pick_place", "default", range(2), "")
    known = {recipes[0].seed: 123, recipes[1].seed: 0}
    assert expert_lengths(session, StateEncoder(), recipes, known) == known


def test_a_rate_over_nothing_is_refused():
    with pytest.raises(ValueError, match="expert failed on all 4"):
        score("pick_place", "default", [], 4, 10)
