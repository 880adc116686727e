"""The tasks as environments of gymnasium and of ManiSkill.

`register()` adds, for each task, two ids to gymnasium's registry: `EmbodiChain-<Task>-v1`, a plain NumPy
environment over `TaskSession`, and `EmbodiChain-<Task>-ManiSkill-v1`, a ManiSkill environment (batched
torch, also in ManiSkill's own registry). Both take the unified action, Box(30).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from mani_skill.utils.registration import REGISTERED_ENVS, register_env

from embodichain.contracts import ACTION_DIM, ARMS, Observation, Recipe, SeedRange, seed_range
from envs import CONTROL_HZ, RenderConfig, SceneSpec, action_space
from envs.world import DualArmWorld
from tasks.base import TaskScene
from tasks.registry import get_task, task_info, task_names
from tasks.sampling import draw_scene
from tasks.session import TaskSession

STEP_LIMIT_RATIO = 2  # step limit of an environment, in expert horizons
BOUND = 20.0  # metres, radians: nothing on or around the table measures more; observations are clipped to it
_FIELDS = ("proprio", "object_pose", "object_size", "object_grasp", "goal_pose", "goal_size", "tool_pose")


def environment_id(task: str) -> str:
    """Environment id of a task: `pick_place` -> `EmbodiChain-PickPlace-v1`."""
    return f"EmbodiChain-{''.join(word.capitalize() for word in task.split('_'))}-v1"


def maniskill_id(task: str) -> str:
    """Id of a task's ManiSkill environment: `pick_place` -> `EmbodiChain-PickPlace-ManiSkill-v1`."""
    return environment_id(task).replace("-v1", "-ManiSkill-v1")


def _observation_space(objects: int, goals: int) -> gymnasium.spaces.Dict:
    shapes = {
        "proprio": (ACTION_DIM,),
        "object_pose": (objects, 7),
        "object_size": (objects, 3),
        "object_grasp": (objects, len(ARMS), 3),
        "goal_pose": (goals, 7),
        "goal_size": (goals, 3),
        "tool_pose": (len(ARMS), 7),
    }
    return gymnasium.spaces.Dict(
        {name: gymnasium.spaces.Box(-BOUND, BOUND, shape, np.float32) for name, shape in shapes.items()}
    )


class TaskEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """One task as a gymnasium environment.

    The observation is a dict of f32 arrays, the fields of `Observation`; the reward is 1 on success, else
    the gain in progress; an episode terminates on success. `reset(seed=s)` builds the scene of recipe
    `(task, s mod 10^6, domain)`: the `test` seeds, never those of training or evaluation.

    Args:
        task: name of a registered task.
        domain: randomisation level.
        render_mode: None or "rgb_array".
    """

    metadata = gymnasium.Env.metadata | {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}

    def __init__(self, *, task: str, domain: str = "default", render_mode: str | None = None) -> None:
        info = get_task(task).info
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r}: expected None or 'rgb_array'")
        self.render_mode = render_mode
        self._task, self._domain = task, domain
        self._session = TaskSession(render=RenderConfig() if render_mode else None)
        self._progress = 0.0
        self._seeds: SeedRange = seed_range("test")
        self.action_space = action_space()
        self.observation_space = _observation_space(info.objects, info.goals)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A fresh scene; without a seed, a random one of the `test` range."""
        super().reset(seed=seed)
        count = self._seeds.stop - self._seeds.start
        index = int(self.np_random.integers(count)) if seed is None else seed % count
        recipe = Recipe(task=self._task, seed=self._seeds.at(index), domain=self._domain)
        observation = self._session.reset(recipe)
        self._progress = self._session.status().progress
        return self._as_dict(observation), {"instruction": self._session.instruction, "recipe": recipe.to_json()}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control step of the unified action f32[30]."""
        observation = self._session.step(np.asarray(action, dtype=np.float32))
        status = self._session.status()
        reward = 1.0 if status.success else status.progress - self._progress
        self._progress = status.progress
        info = {"success": status.success, "progress": status.progress}
        return self._as_dict(observation), float(reward), status.success, False, info

    def render(self) -> np.ndarray | None:
        """u8[H, W, 3], or None where `render_mode` is None."""
        return self._session.render_frame() if self.render_mode else None

    def close(self) -> None:
        """Release the simulator."""
        self._session.close()

    @staticmethod
    def _as_dict(observation: Observation) -> dict[str, np.ndarray]:
        return {name: np.clip(getattr(observation, name), -BOUND, BOUND) for name in _FIELDS}


class ManiSkillTask(DualArmWorld):
    """One task as a ManiSkill environment: same scenes, physics and judgement, ManiSkill's interface.

    Args:
        task: name of a registered task.
        domain: randomisation level.
        kwargs: passed to ManiSkill's `BaseEnv`.
    """

    def __init__(self, *, task: str, domain: str = "default", **kwargs: Any) -> None:
        self._task, self._domain = get_task(task), domain
        self._scene_now: TaskScene | None = None
        renders = kwargs.get("render_mode") is not None
        num_envs, backend = kwargs.pop("num_envs", 1), kwargs.pop("sim_backend", "physx_cpu")
        kwargs.pop("render_backend", None)
        if num_envs != 1 or backend not in ("auto", "cpu", "physx_cpu"):
            raise ValueError(f"num_envs={num_envs}, sim_backend={backend!r}: expected 1 and 'physx_cpu'")
        super().__init__(render=RenderConfig() if renders else None, **kwargs)

    def sample_scene(self, seed: int) -> SceneSpec:
        """The task's scene for this seed (modulo 10^6: the `test` range)."""
        index = seed % (seed_range("test").stop - seed_range("test").start)
        self._scene_now = draw_scene(self._task, seed_range("test").at(index), self._domain)
        self._monitor = self._task.monitor(self._scene_now)
        return self._scene_now.spec

    def evaluate(self) -> dict[str, torch.Tensor]:
        """ManiSkill's judgement: `success` bool[1] and `progress` f32[1]."""
        status = self._monitor.update(self)
        return {"success": torch.tensor([status.success]), "progress": torch.tensor([status.progress])}

    def _get_obs_extra(self, info: dict[str, Any]) -> dict[str, torch.Tensor]:
        extra = super()._get_obs_extra(info)
        goals = np.array([goal.pose for goal in self.spec_scene.goals], dtype=np.float32)
        return {**extra, "goal_pose": torch.from_numpy(goals.reshape(1, -1))}


def register() -> list[str]:
    """Add every task to gymnasium's and ManiSkill's registries (once); returns the ids."""
    ids = []
    for task in task_names():
        limit = STEP_LIMIT_RATIO * task_info(task).horizon
        plain, maniskill = environment_id(task), maniskill_id(task)
        if plain not in gymnasium.registry:
            gymnasium.register(
                plain, entry_point="tasks.gym_env:TaskEnv", max_episode_steps=limit, kwargs={"task": task}
            )
        if maniskill not in REGISTERED_ENVS:
            register_env(maniskill, max_episode_steps=limit, task=task)(ManiSkillTask)
        ids += [plain, maniskill]
    return ids
