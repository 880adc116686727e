"""The physical world: two facing Pandas at a table, built from a `SceneSpec`, stepped at 20 Hz.

`DualArmWorld` is a ManiSkill environment. It has two faces on one and the same scene and physics:

* the fast one (`rebuild`, and `envs.physics`: `apply`, `proprio`, `object_pose`, ...), NumPy in and out, which the
  data engine drives. Poses are read straight from SAPIEN; a rebuild takes a few milliseconds.
* ManiSkill's own (`reset`, `step`, `get_state`, ...), batched torch, which wraps the scene's bodies in
  ManiSkill's structs on the way.

Every rebuild makes a fresh physics scene, because only that is bit-exact: PhysX keeps contact and solver
state across a plain reset. The world knows no goals beyond drawing their markers.
"""

from __future__ import annotations

import gc
from typing import Any

import gymnasium
import numpy as np
import sapien
import torch
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.envs.scene import ManiSkillScene
from mani_skill.utils import common
from mani_skill.utils.structs import Actor, Articulation, Pose
from mani_skill.utils.structs.types import SceneConfig, SimConfig
from sapien import physx

from embodichain.contracts import ACTION_DIM, ARMS, UnifiedAction
from envs.build import to_sapien_pose
from envs.camera import RenderConfig
from envs.panda import HOME_QPOS
from envs.physics import CONTROL_HZ, SIM_HZ, PhysicalScene
from envs.scene import SceneSpec

SOLVER_ITERATIONS = 15  # fewer leave a held load with a spurious velocity of centimetres per second
CONTACT_OFFSET = 0.01  # m, the distance at which PhysX starts to make contacts
FULL_GC_EVERY = 200  # rebuilds through ManiSkill's structs between full garbage collections


def action_space() -> gymnasium.spaces.Box:
    """Box(30) over the unified vector: metres within 2 m, quaternions, radians, grippers in [0, 1]."""
    low = np.full(ACTION_DIM, -1.0, dtype=np.float32)
    high = np.ones(ACTION_DIM, dtype=np.float32)
    for arm in range(len(ARMS)):
        start = UnifiedAction.eef(arm).start
        low[start : start + 3], high[start : start + 3] = -2.0, 2.0
        low[UnifiedAction.joints(arm)], high[UnifiedAction.joints(arm)] = -4.0, 4.0
        low[UnifiedAction.gripper(arm)] = 0.0
    return gymnasium.spaces.Box(low, high, dtype=np.float32)


class DualArmWorld(PhysicalScene, BaseEnv):
    """Two Pandas, a table, and whatever a `SceneSpec` puts on it.

    Args:
        render: what to render; None builds no renderer at all.
        kwargs: passed to ManiSkill's `BaseEnv`.
    """

    scene: ManiSkillScene | None
    SUPPORTED_ROBOTS = None
    SUPPORTED_OBS_MODES = ("state_dict", "state", "none")
    SUPPORTED_REWARD_MODES = ("none", "sparse")

    def __init__(self, *, render: RenderConfig | None = None, **kwargs: Any) -> None:
        PhysicalScene.__init__(self, render)
        self.spec_scene = self.sample_scene(0)
        self._wrapped_rebuilds = 0
        backend = "none" if render is None else ("cpu" if render.backend == "cpu" else "gpu")
        kwargs.setdefault("obs_mode", "state_dict")
        kwargs.setdefault("reward_mode", "none")
        BaseEnv.__init__(self, num_envs=1, sim_backend="physx_cpu", render_backend=backend, robot_uids="none", **kwargs)
        self.single_action_space = action_space()
        self.action_space = self.single_action_space
        self._orig_single_action_space = self.single_action_space

    def sample_scene(self, seed: int) -> SceneSpec:
        """The scene that ManiSkill's `reset(seed)` builds; a bare world has an empty table."""
        del seed
        return SceneSpec(objects=(), goals=(), arm_qpos=(HOME_QPOS, HOME_QPOS))

    def rebuild(self, spec: SceneSpec) -> None:
        """Throw the scene away and build `spec` afresh. Bit-exact, whatever ran before."""
        self._release_structs()
        self.spec_scene = spec
        self._set_scene_config()
        self._fill(self._new_sapien_scene())

    def _new_sapien_scene(self) -> sapien.Scene:
        systems: list[Any] = [physx.PhysxCpuSystem()]
        if self._render_config is not None:
            systems.append(sapien.render.RenderSystem(self._render_device))
        scene = sapien.Scene(systems)
        scene.physx_system.timestep = 1.0 / self._sim_freq
        return scene

    def _release_structs(self) -> None:
        """Drop ManiSkill's view of the old scene: its structs hold reference cycles around the bodies."""
        scene: ManiSkillScene | None = self.scene
        if scene is not None:
            for articulation in scene.articulations.values():
                articulation.__dict__.clear()
            scene.__dict__.clear()
        self.scene = None
        self.agent = None

    # ---------------------------------------------------------------- ManiSkill's face

    @property
    def _default_sim_config(self) -> SimConfig:
        contact = SceneConfig(solver_position_iterations=SOLVER_ITERATIONS, contact_offset=CONTACT_OFFSET)
        return SimConfig(sim_freq=SIM_HZ, control_freq=int(CONTROL_HZ), scene_config=contact)

    def reset(
        self, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """ManiSkill's reset; it always reconfigures, since only a fresh scene is bit-exact."""
        return super().reset(seed=seed, options={**(options or {}), "reconfigure": True})

    def _clear(self) -> None:
        self._close_viewer()
        for table in ("_sensors", "_human_render_cameras"):
            setattr(self, table, {})
        self._hidden_objects: list[Actor] = []
        self._release_structs()
        self._wrapped_rebuilds += 1
        if self._wrapped_rebuilds % FULL_GC_EVERY == 0:
            gc.collect()

    def close(self) -> None:
        """Release the scene. The renderer lives as long as the object: starting it again takes seconds."""
        super().close()
        self.arms, self._bodies, self._objects, self._rig = (), [], [], None
        for name in ("_px", "_sapien_scene", "_table", "_contact_reader"):
            self.__dict__.pop(name, None)

    def _load_agent(self, options: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        self.agent = None

    def _load_lighting(self, options: dict[str, Any]) -> None:
        """The camera rig brings the light."""

    def _load_scene(self, options: dict[str, Any]) -> None:
        assert self.scene is not None
        self.spec_scene = self.sample_scene(int(self._episode_seed[0]))
        self._fill(self.scene.sub_scenes[0])
        index = torch.zeros(1, dtype=torch.int32)
        for arm, name in zip(self.arms, ARMS, strict=True):
            wrapped = Articulation.create_from_physx_articulations([arm.articulation], self.scene, index)
            wrapped.initial_pose = Pose.create(arm.base)
            self.scene.articulations[name] = wrapped
            self.scene.add_to_state_dict_registry(wrapped)
        for built, spec in zip(self._objects, self.spec_scene.objects, strict=True):
            entity = built.body.entity
            if built.articulation is not None:
                held = Articulation.create_from_physx_articulations([built.articulation], self.scene, index)
                held.initial_pose = Pose.create(to_sapien_pose(spec.pose))
                self.scene.articulations[spec.name] = held
                self.scene.add_to_state_dict_registry(held)
                continue
            actor = Actor.create_from_entities([entity], self.scene, index, shared_name=entity.name)
            actor.initial_pose = Pose.create(entity.pose)
            self.scene.actors[entity.name] = actor
            self.scene.add_to_state_dict_registry(actor)

    def _step_action(self, action: Any) -> Any:
        if action is not None:
            tensor = common.to_tensor(action, device=self.device)
            self.apply(np.asarray(tensor, dtype=np.float32).reshape(-1))
            return tensor
        self._step_physics()
        return action

    def get_state_dict(self) -> dict[str, Any]:
        """ManiSkill's state: bodies only, since drive targets come anew with every action."""
        assert self.scene is not None
        return self.scene.get_sim_state()

    def _get_obs_agent(self) -> dict[str, torch.Tensor]:
        return {"proprio": torch.from_numpy(self.proprio())[None]}

    def _get_obs_extra(self, info: dict[str, Any]) -> dict[str, torch.Tensor]:
        del info
        arrays = {"object_pose": self.object_pose(), "tool_pose": self.tool_pose(), "qvel": self.arm_qvel()}
        return {name: torch.from_numpy(array.reshape(1, -1)) for name, array in arrays.items() if array.size}

    def render_rgb_array(self, camera_name: str | None = None) -> torch.Tensor:
        """u8[1, H, W, 3]: the `video` viewpoint."""
        del camera_name
        return torch.from_numpy(self.render_video_frame())[None]
