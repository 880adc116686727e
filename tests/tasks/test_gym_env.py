"""The tasks through gymnasium's and ManiSkill's doors, with the checks that those projects apply to envs."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.utils.registration import REGISTERED_ENVS
from mani_skill.utils.wrappers import CPUGymWrapper

from embodichain.contracts import ACTION_DIM
from tasks import register, task_info, task_names
from tasks.gym_env import STEP_LIMIT_RATIO, environment_id, maniskill_id


@pytest.fixture(scope="module", autouse=True)
def registered() -> list[str]:
    return register()


def test_registering_twice_is_harmless(registered: list[str]) -> None:
    assert register() == registered
    ids = {environment_id(t) for t in task_names()}
    assert {"EmbodiChain-PickPlace-v1", "EmbodiChain-Handover-v1", "EmbodiChain-TwoArmLift-v1"} <= ids
    assert ids <= set(gymnasium.registry)
    assert len(ids) == len(task_names())


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space.*")
@pytest.mark.parametrize("task", task_names())
def test_gymnasium_checks_pass(task: str) -> None:
    env = gymnasium.make(environment_id(task))
    assert env.spec is not None
    assert env.spec.max_episode_steps == STEP_LIMIT_RATIO * task_info(task).horizon
    assert env.action_space.shape == (ACTION_DIM,)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("task", task_names())
def test_maniskill_steps_with_random_actions(task: str) -> None:
    """As ManiSkill's own suite does: make by id, reset, random actions, batched tensors of the stated space."""
    assert issubclass(REGISTERED_ENVS[maniskill_id(task)].cls, BaseEnv)
    env = gymnasium.make(maniskill_id(task))
    env.reset(seed=0)
    for _ in range(5):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert isinstance(observation["agent"]["proprio"], torch.Tensor)
    assert observation["agent"]["proprio"].shape == (1, ACTION_DIM)
    for batched in (reward, terminated, truncated, info["success"]):
        assert torch.as_tensor(batched).shape == (1,)
    env.close()


@pytest.mark.parametrize("obs_mode", ["state", "state_dict", "none"])
def test_maniskill_observation_modes(obs_mode: str) -> None:
    env = gymnasium.make(maniskill_id("pick_place"), obs_mode=obs_mode)
    observation, _ = env.reset(seed=0)
    if obs_mode == "state":
        assert observation.shape == env.observation_space.shape
    env.step(env.action_space.sample())
    env.close()


def test_maniskill_seeded_reset_repeats_and_state_can_be_set() -> None:
    env = gymnasium.make(maniskill_id("pick_place"), obs_mode="state")
    first, _ = env.reset(seed=2000)
    for _ in range(5):
        env.step(env.action_space.sample())
    base = env.unwrapped
    assert isinstance(base, BaseEnv)
    state, seen = base.get_state(), base.get_obs()
    for _ in range(10):
        env.step(env.action_space.sample())
    base.set_state(state)
    np.testing.assert_allclose(base.get_obs().numpy(), seen.numpy(), atol=1e-4)
    again, _ = env.reset(seed=2000)
    assert torch.equal(first, again)
    with pytest.raises(ValueError, match="finite"):
        env.step(env.action_space.sample() * np.nan)
    env.close()


def test_maniskill_wrapper_makes_a_plain_environment() -> None:
    env = CPUGymWrapper(gymnasium.make(maniskill_id("two_arm_lift")))
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    env.close()


def test_maniskill_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="num_envs=4"):
        gymnasium.make(maniskill_id("pick_place"), num_envs=4)


def test_both_doors_open_on_the_same_scene() -> None:
    plain, maniskill = (gymnasium.make(make_id("handover")) for make_id in (environment_id, maniskill_id))
    seen, _ = plain.reset(seed=17)
    wrapped, _ = maniskill.reset(seed=17)
    np.testing.assert_array_equal(seen["proprio"], wrapped["agent"]["proprio"][0].numpy())
    np.testing.assert_array_equal(seen["object_pose"].ravel(), wrapped["extra"]["object_pose"][0].numpy())
