"""The nouns of a task: what it is called, what its scene looks like, how it is judged, how it is solved.

A `Task` is a stateless description. It draws a `TaskScene` from a random generator, opens a `Monitor`
that judges one episode from physics state, and plans an expert from where the world is: freshly built, or after an
error with part of the work done.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from embodichain.contracts import ACTION_DIM, ARMS, UnifiedAction
from envs import CONTROL_HZ, PandaKinematics, SceneSpec
from envs.world import DualArmWorld
from tasks.draws import Draws

MAX_JOINT_STEP = 2.61 / CONTROL_HZ  # rad per control step: the speed limit of the Panda's fastest joint


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """The catalogue entry of a task.

    Attributes:
        name: as in `Recipe.task`.
        family: tasks that share skills and a predicate.
        arms: "either" or "both".
        split: "train" or "heldout".
        horizon: upper bound on the expert's control steps.
        segments: the expert's skills, in the order of `ExpertPlan.segment_id`.
        description: one sentence.
        instructions: templates of what the robot is told (see `tasks.language`), at least ten phrasings.
        heldout_instructions: templates that only the held-out side `language` uses.
        objects, goals: how many the scene has.
    """

    name: str
    family: str
    arms: str
    split: str
    horizon: int
    segments: tuple[str, ...]
    description: str
    instructions: tuple[str, ...]
    heldout_instructions: tuple[str, ...]
    objects: int = 1
    goals: int = 1


@dataclass(frozen=True, kw_only=True)
class TaskStatus:
    """Judgement of one moment.

    Attributes:
        success: the task is done, right now, at rest (and let go of, where the task asks for it).
        progress: in [0, 1], the furthest stage reached since the reset; 1 exactly on success.
    """

    success: bool
    progress: float


class PlanFailure(Exception):
    """The expert finds no plan for this scene; `reason` is a short slug, e.g. "ik_unreachable"."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class ExpertPlan:
    """What the expert does, from a freshly reset scene.

    Attributes:
        action: f32[T, 30], absolute unified targets; the pose half is the kinematics of the joint half.
        segment_id: i16[T], index into `segment_names`, never decreasing.
        segment_names: the skills.
        disturbance: f32[T] in [0, 1], how much of the domain's execution noise each step bears; None: all of it.

    Raises:
        PlanFailure: "wrong_shape" for arrays of another shape or dtype or ids that name no segment, "not_finite".
    """

    action: np.ndarray
    segment_id: np.ndarray
    segment_names: tuple[str, ...]
    disturbance: np.ndarray | None = None

    def __post_init__(self) -> None:
        steps, names = len(self.action), len(self.segment_names)
        shapes = {
            "action": (self.action.shape, (max(steps, 1), ACTION_DIM)),
            "segment_id": (self.segment_id.shape, (steps,)),
            "disturbance": ((steps,) if self.disturbance is None else self.disturbance.shape, (steps,)),
        }
        for name, (shape, expected) in shapes.items():
            if shape != expected:
                raise PlanFailure("wrong_shape", f"{name} has shape {shape}, expected {expected}")
        if (self.action.dtype, self.segment_id.dtype) != (np.float32, np.int16):
            raise PlanFailure("wrong_shape", "action must be float32 and segment_id int16")
        if not np.isin(self.segment_id, np.arange(names)).all() or np.any(np.diff(self.segment_id) < 0):
            raise PlanFailure("wrong_shape", f"segment_id must rise from 0 to at most {names - 1}")
        if not np.isfinite(self.action).all():
            raise PlanFailure("not_finite", "action holds NaN or infinity")

    def check(self, start: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
        """Whether an arm can follow it from joint angles `start` f32[2, 7] within limits f32[7] each, radians.

        Raises:
            PlanFailure: "jump" where a joint would move faster than the Panda's fastest can, "joint_limit".
        """
        for arm in range(len(ARMS)):
            joints = self.action[:, UnifiedAction.joints(arm)]
            step = float(np.abs(np.diff(joints, axis=0, prepend=start[arm][None])).max())
            if step > MAX_JOINT_STEP:
                raise PlanFailure("jump", f"{ARMS[arm]} arm: {step:.3f} rad in one step, at most {MAX_JOINT_STEP:.3f}")
            if np.any(joints < lower) or np.any(joints > upper):
                raise PlanFailure("joint_limit", f"{ARMS[arm]} arm: a target beyond the joints' limits")


@dataclass(frozen=True, kw_only=True)
class TaskScene:
    """One draw of a task.

    Attributes:
        spec: the scene.
        words: what the slots of the task's templates are filled with. Together they are the combination (of object,
            colour, arm, goal) that is, or is not, held out.
        instruction: what the robot is told; filled in by `tasks.sampling.draw_scene`, as `draws` is.
        draws: every random number behind the scene, JSON-able.
    """

    spec: SceneSpec
    words: dict[str, str] = field(default_factory=dict)
    instruction: str = ""
    draws: dict[str, object] = field(default_factory=dict)


class Monitor(Protocol):
    """Judges one episode. Created at reset; sees the world after every control step."""

    def update(self, world: DualArmWorld) -> TaskStatus:
        """The status now. Called once after the reset and once after every control step."""
        ...


class Task(Protocol):
    """A task family member."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        ...

    def draw(self, draws: Draws) -> TaskScene:
        """A random scene and the words for its instruction."""
        ...

    def monitor(self, scene: TaskScene) -> Monitor:
        """A fresh judge of one episode in this scene."""
        ...

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """The expert for the world as it is: freshly built, or in the middle. Raises `PlanFailure`."""
        ...
