"""Where a robot is expected to be when a chunk has been played, against where real physics takes it."""

from dataclasses import replace

import numpy as np
import pytest

from embodichain.app.policies import ModelPolicy, expected_posture
from embodichain.contracts import ARMS, Recipe, UnifiedAction
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions, make_episode
from envs import PandaKinematics
from learner.testing import small_model
from tasks.session import TaskSession

TAU = 8


@pytest.fixture(scope="module")
def episode():
    session = TaskSession(render=None)
    episode, _, _ = make_episode(Recipe(task="pick_place", seed=3), session, StateEncoder(), RolloutOptions(tau=TAU))
    session.close()
    assert episode is not None
    return episode


def mean_error(episode, expected, dims) -> float:
    times = range(TAU, episode.pairs - TAU, TAU)
    return float(np.mean([np.abs(expected(t) - episode.proprio[t + TAU])[dims] for t in times]))


def test_the_expected_posture_is_where_the_arms_will_be_rather_than_their_targets(episode):
    kinematics = PandaKinematics()

    def posture(t):
        planned = episode.action[t : t + TAU]
        return expected_posture(episode.proprio[t], episode.action[t - 1], planned, kinematics)

    def target(t):
        return episode.action[t + TAU - 1]

    def as_late_as_last(t):
        return target(t) + episode.proprio[t] - episode.action[t - 1]

    joints = np.concatenate([np.arange(30)[UnifiedAction.joints(arm)] for arm in range(len(ARMS))])
    for other in (target, as_late_as_last):  # a lag is one of the moment: how fast the arm moves just then
        assert mean_error(episode, posture, joints) < 0.5 * mean_error(episode, other, joints)
    grippers = [UnifiedAction.gripper(arm).start for arm in range(len(ARMS))]
    assert mean_error(episode, target, grippers) > 0.1  # closing on an object, they stand at its width
    assert mean_error(episode, posture, grippers) < 0.5 * mean_error(episode, target, grippers)


def test_the_tool_is_where_the_joints_put_it_and_an_opening_stays_one():
    kinematics, rng = PandaKinematics(), np.random.default_rng(0)
    target = rng.uniform(-0.5, 0.5, 30).astype(np.float32)
    now = target.copy()
    left, right = (UnifiedAction.gripper(arm) for arm in range(len(ARMS)))
    last = target.copy()
    target[left], last[left], now[left] = 0.9, 0.85, 1.0  # goes on being asked for the same: as far off as it was
    target[right], last[right], now[right] = 0.0, 1.0, 1.0  # is told to close
    posture = expected_posture(now, last, np.repeat(target[None], 40, axis=0), kinematics)
    for arm in range(len(ARMS)):
        joints = UnifiedAction.joints(arm)
        np.testing.assert_allclose(posture[joints], target[joints], atol=1e-6)
        np.testing.assert_allclose(posture[UnifiedAction.eef(arm)], kinematics.forward(posture[joints]), atol=1e-6)
    assert posture[left] == 1.0
    assert posture[right] == pytest.approx(0.0, abs=1e-6)
    one = expected_posture(now, last, target[None], kinematics)
    assert one[right] == pytest.approx(np.exp(-0.5), abs=1e-6)  # a drive of 0.1 s, a control step of 0.05


def test_another_text_encoder_than_the_policy_was_trained_on_is_refused():
    model = small_model()
    model.data = replace(model.data, text_encoder_id="some-other")
    with pytest.raises(ValueError, match="trained on text encoder 'some-other'"):
        ModelPolicy(model, replan=4)
