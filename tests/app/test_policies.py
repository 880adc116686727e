"""Where a robot is expected to be when a chunk has been played, against where real physics takes it."""

import numpy as np
import pytest

from embodichain.app.policies import expected_posture
from embodichain.contracts import ARMS, Recipe, UnifiedAction
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions, make_episode
from envs import PandaKinematics
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


def test_the_expected_posture_is_nearer_than_the_target(episode):
    kinematics = PandaKinematics()

    def posture(t):
        behind = episode.proprio[t] - episode.action[t - 1]
        return expected_posture(episode.action[t + TAU - 1], behind, kinematics)

    def target(t):
        return episode.action[t + TAU - 1]

    grippers = [UnifiedAction.gripper(arm).start for arm in range(len(ARMS))]
    assert mean_error(episode, target, grippers) > 0.1  # closing on an object, they stand at its width
    assert mean_error(episode, posture, grippers) < 0.5 * mean_error(episode, target, grippers)


def test_the_tool_is_where_the_joints_put_it_and_an_opening_stays_one():
    kinematics, rng = PandaKinematics(), np.random.default_rng(0)
    target = rng.uniform(-0.5, 0.5, 30).astype(np.float32)
    behind = np.zeros(30, np.float32)
    for arm in range(len(ARMS)):
        target[UnifiedAction.gripper(arm)], behind[UnifiedAction.gripper(arm)] = 0.9, 0.3
    posture = expected_posture(target, behind, kinematics)
    for arm in range(len(ARMS)):
        np.testing.assert_array_equal(posture[UnifiedAction.joints(arm)], target[UnifiedAction.joints(arm)])
        tool = kinematics.forward(posture[UnifiedAction.joints(arm)])
        np.testing.assert_allclose(posture[UnifiedAction.eef(arm)], tool, atol=1e-6)
        assert posture[UnifiedAction.gripper(arm)] == 1.0
