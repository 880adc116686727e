"""One simulator, any task: what actors and evaluators drive.

Takes recipes, hands on observations, judgements and expert plans. What an episode does depends on its
recipe and actions alone, not on what the session ran before.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from inspect import getsourcefile
from pathlib import Path

import numpy as np

from embodichain.contracts import Observation, Recipe
from envs import ARM_DOF, CONTROL_HZ, PandaKinematics, RenderConfig
from envs.world import DualArmWorld
from tasks.base import ExpertPlan, Monitor, PlanFailure, Task, TaskInfo, TaskScene, TaskStatus
from tasks.judge import all_at_rest
from tasks.mimic import Demonstration, Imitation, imitable
from tasks.registry import get_task, plugin_versions, task_names
from tasks.sampling import draw_scene
from tasks.skills import Script

PARENTS_KEPT = 200  # demonstrations that a session remembers
MAX_SETTLE_STEPS = 40  # how long a finished plan may take to come to rest
JOINT_MARGIN = 0.01  # rad, by which a measured joint may exceed its limit
UNSETTLED_PROGRESS = 0.999  # of a task that is done while something in the scene still moves


@cache
def sim_hash(task: str | None = None) -> str:
    """16 hex digits over the sources of envs and tasks and the simulator's version.

    Episodes made under equal hashes are bit-exact replays of each other; an edit elsewhere in the
    project does not expire them. Computed once per process.

    Args:
        task: leave out the files that define the other tasks: what was measured of this one holds while its hash does.
    """
    digest = hashlib.blake2b(digest_size=8)
    root = Path(__file__).resolve().parent.parent
    others = {getsourcefile(type(get_task(name))) for name in task_names() if name != task} if task else set()
    for package in ("envs", "tasks"):
        for path in sorted((root / package).rglob("*.py")):
            if str(path) in others:
                continue
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    for package in ("sapien", "mani_skill", "ruckig", "pin"):
        digest.update(f"{package}={version(package)}".encode())
    digest.update("".join(plugin_versions()).encode())
    return digest.hexdigest()


def _fixed_observation(scene: TaskScene) -> dict[str, np.ndarray]:
    """The parts of an observation that stay the same through an episode."""
    spec = scene.spec
    return {
        "object_size": np.array([o.half_extents for o in spec.objects], dtype=np.float32).reshape(-1, 3),
        "goal_pose": np.array([g.pose for g in spec.goals], dtype=np.float32).reshape(-1, 7),
        "goal_size": np.array([g.tolerance for g in spec.goals], dtype=np.float32).reshape(-1, 3),
    }


class TaskSession:
    """Resets to recipes, steps, judges and plans.

    Args:
        render: what to render; None touches no renderer (then `observe(rgb=True)` and `render_frame` fail).
    """

    def __init__(self, *, render: RenderConfig | None = None) -> None:
        self._world = DualArmWorld(render=render)
        self._kinematics = PandaKinematics()
        self._task: Task | None = None
        self._scene: TaskScene | None = None
        self._monitor: Monitor | None = None
        self._status = TaskStatus(success=False, progress=0.0)
        self._limits_ok = self._fresh = True
        self._parent: Demonstration | None = None
        self._imitates = False
        self._parents: OrderedDict[tuple[str, int, str], Demonstration | None] = OrderedDict()
        self._lower = (self._kinematics.lower - JOINT_MARGIN).astype(np.float32)
        self._upper = (self._kinematics.upper + JOINT_MARGIN).astype(np.float32)
        self._fixed: dict[str, np.ndarray] = {}

    def reset(self, recipe: Recipe) -> Observation:
        """Build the recipe's scene from scratch.

        Raises:
            KeyError: unknown task.
            ValueError: unknown domain, or a task that cannot be imitated.
        """
        parent = self._parent_of(recipe)
        task = get_task(recipe.task)
        observation = self.begin(task, draw_scene(task, recipe.seed, recipe.domain))
        self._parent, self._imitates = parent, recipe.parent_seed is not None
        return observation

    def begin(self, task: Task, scene: TaskScene) -> Observation:
        """Build a scene of `task` from scratch, wherever it was drawn."""
        self._world.rebuild(scene.spec)
        self._task, self._scene = task, scene
        self._monitor = task.monitor(scene)
        self._fixed = _fixed_observation(scene)
        self._limits_ok = self._fresh = True
        self._parent, self._imitates = None, False
        return self._after_step()

    def step(self, action: np.ndarray) -> Observation:
        """Execute f32[30] for one control step (joints and grippers) and observe.

        Raises `ValueError` for a wrong shape or a non-finite entry, and before the first reset.
        """
        self._need_scene()
        self._world.apply(action)
        self._fresh = False
        return self._after_step()

    def _after_step(self) -> Observation:
        assert self._monitor is not None
        self._status = self._monitor.update(self._world)
        if self._status.success and not all_at_rest(self._world):
            self._status = TaskStatus(success=False, progress=UNSETTLED_PROGRESS)
        qpos = self._world.arm_qpos()[:, :ARM_DOF]
        self._limits_ok = self._limits_ok and bool(((qpos > self._lower) & (qpos < self._upper)).all())
        return self.observe()

    def observe(self, rgb: bool = False) -> Observation:
        """What is known now; frames u8[V, H, W, 3] are rendered only if `rgb`."""
        self._need_scene()
        return Observation(
            proprio=self._world.proprio(),
            object_pose=self._world.object_pose(),
            object_grasp=self._world.object_grasp(),
            **{name: array.copy() for name, array in self._fixed.items()},
            tool_pose=self._world.tool_pose(),
            rgb=self._world.render_observation() if rgb else None,
        )

    def render_frame(self) -> np.ndarray:
        """u8[H, W, 3] for videos."""
        self._need_scene()
        return self._world.render_video_frame()

    def sim_state(self) -> np.ndarray:
        """f32[S]: objects' poses and velocities, arms' joint positions and velocities."""
        self._need_scene()
        return self._world.sim_state()

    def status(self) -> TaskStatus:
        """Judgement of the moment after the last step (or reset)."""
        self._need_scene()
        return self._status

    def expert(self) -> ExpertPlan:
        """A plan from the state as it is now: freshly reset, or amid a recovery; checked. Raises `PlanFailure`."""
        scene = self._need_scene()
        assert self._task is not None
        if self._imitates and self._fresh:
            if self._parent is None:
                raise PlanFailure("parent_failed")
            plan = Imitation(self._parent, scene, self._world, self.script()).plan()
        else:
            plan = self._task.plan(scene, self._world, self._kinematics)
        plan.check(self._world.arm_qpos()[:, :ARM_DOF], self._lower, self._upper)
        return plan

    def _parent_of(self, recipe: Recipe) -> Demonstration | None:
        """The demonstration that `recipe` imitates, made here unless it is remembered; None if it failed."""
        seed, task = recipe.parent_seed, get_task(recipe.task)
        if seed is None:
            return None
        if not imitable(task.info):
            raise ValueError(f"recipe.source={recipe.source}: {recipe.task} grasps nothing and cannot be imitated")
        key = (recipe.task, seed, recipe.domain)
        if key not in self._parents:
            self._parents[key] = self._demonstrate(replace(recipe, seed=seed, source="expert"))
            if len(self._parents) > PARENTS_KEPT:
                self._parents.popitem(last=False)
        return self._parents[key]

    def _demonstrate(self, recipe: Recipe) -> Demonstration | None:
        """The undisturbed expert, and where the objects were; None if it does not succeed."""
        self.reset(recipe)
        try:
            plan = self.expert()
        except PlanFailure:
            return None
        objects = [self._world.object_pose()]
        for action in plan.action:
            self.step(action)
            objects.append(self._world.object_pose())
        for _ in range(MAX_SETTLE_STEPS):
            if self._status.success:
                return Demonstration(scene=self.scene, plan=plan, objects=np.stack(objects))
            self.step(plan.action[-1])
        return None

    def limits_ok(self) -> bool:
        """Whether every measured joint angle since the reset lay within its limits."""
        return self._limits_ok

    @property
    def instruction(self) -> str:
        """What the robot is told."""
        return self._need_scene().instruction

    @property
    def draws(self) -> dict[str, object]:
        """Every random draw behind the scene, JSON-able."""
        return dict(self._need_scene().draws)

    @property
    def control_hz(self) -> float:
        """Control steps per second."""
        return CONTROL_HZ

    @property
    def info(self) -> TaskInfo:
        """Catalogue entry of the task that was reset last."""
        self._need_scene()
        assert self._task is not None
        return self._task.info

    def script(self) -> Script:
        """An empty plan from where the arms are now."""
        return Script(self._world, self._kinematics)

    @property
    def kinematics(self) -> PandaKinematics:
        """Of either arm."""
        return self._kinematics

    @property
    def scene(self) -> TaskScene:
        """The scene that was reset last."""
        return self._need_scene()

    @property
    def world(self) -> DualArmWorld:
        """The simulator, for tests and tools that look beneath."""
        return self._world

    def close(self) -> None:
        """Release the scene."""
        self._world.close()
        self._scene = None

    def _need_scene(self) -> TaskScene:
        if self._scene is None:
            raise ValueError("reset the session to a recipe first")
        return self._scene
