"""Turn the wheel: a wheel lying on the table has two posts; both arms take one each and turn it to its mark."""

from __future__ import annotations

import numpy as np

from envs import BoxPart, GoalSpec, JointSpec, ObjectSpec, PandaKinematics, make_pose
from envs.world import DualArmWorld
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.judge import Ladder, at_rest, closeness, holding, yaw_of
from tasks.materials import ALUMINIUM
from tasks.skills import PICK, SETTLE_STEPS, Script, grips_on

ANGLE_TOLERANCE = 0.05  # rad
X_RANGE, Y_RANGE, YAW_LIMIT = (-0.15, 0.15), (-0.08, 0.08), 0.45  # m, m, rad
TURN_RANGE = (0.35, 0.85)  # rad, to either side
RADIUS = (0.105, 0.130)  # m, of the posts
HUB_HEIGHT, POST_HALF = 0.028, (0.010, 0.012, 0.028)  # m
JOINT_LIMIT = 1.2  # rad


class TurnWheel:
    """The task `turn_wheel`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="turn_wheel",
            family="turn_wheel",
            arms="both",
            split="train",
            horizon=110,
            segments=(*PICK, "turn"),
            description="Turn a stiff wheel to its mark with a hand on either post.",
            instructions=(
                "[turn|rotate] the {wheel} wheel with both hands until it lies between the {goal} marks",
                "with both [hands|arms], [turn|rotate] the {wheel} wheel {direction} to the {goal} marks",
                "[turn|rotate] the {wheel} wheel {direction} with [both hands|both arms]",
            ),
            heldout_instructions=("[steer|wind] the {wheel} wheel {direction} to its {goal} mark",),
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A wheel in the middle of the table and the angle that it shall have."""
        radius = draws.size("radius", *RADIUS)
        where = (draws.position("wheel_x", *X_RANGE), draws.position("wheel_y", *Y_RANGE), HUB_HEIGHT)
        yaw = draws.yaw("wheel_yaw", YAW_LIMIT)
        turn = draws.sign("direction") * draws.position("turn", *TURN_RANGE)
        wheel_word, goal_word = draws.colours("colours", ("cyan", "white"))
        posts = tuple(
            BoxPart(half_size=POST_HALF, position=(0.0, side * radius, POST_HALF[2]), shade=0.6) for side in (1.0, -1.0)
        )
        parts = (BoxPart(half_size=(0.016, radius + 0.02, 0.008)), BoxPart(half_size=(0.05, 0.05, 0.008)), *posts)
        wheel = ObjectSpec(
            name="wheel",
            parts=parts,
            base=(BoxPart(half_size=(0.03, 0.03, 0.009), position=(0.0, 0.0, 0.009 - HUB_HEIGHT), shade=0.5),),
            joint=JointSpec(
                kind="hinge",
                axis=(0.0, 0.0, 1.0),
                limits=(-JOINT_LIMIT, JOINT_LIMIT),
                friction=draws.physical("joint_friction", 0.05),
                damping=draws.physical("joint_damping", 1.5),
            ),
            pose=make_pose(where, yaw),
            mass=draws.mass("mass", ALUMINIUM, parts),
            friction=draws.physical("friction", 1.0),
            colour=colour_words()[wheel_word],
            grasps=tuple((0.0, side * radius, 1.4 * POST_HALF[2]) for side in (1.0, -1.0)),
        )
        goal = GoalSpec(
            name="goal",
            pose=make_pose(where, yaw + turn),
            tolerance=(0.02, 0.02, 0.02),
            marker="frame",
            marker_half_size=(0.022, radius + 0.03, 0.012),
            colour=colour_words()[goal_word],
        )
        direction = "counter-clockwise" if turn > 0.0 else "clockwise"
        return TaskScene(
            spec=draws.scene((wheel,), (goal,)), words={"wheel": wheel_word, "goal": goal_word, "direction": direction}
        )

    def monitor(self, scene: TaskScene) -> TurnWheelMonitor:
        """A fresh judge."""
        return TurnWheelMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Reach and grasp the posts at once, turn along an arc in step."""
        pose = world.object_pose()[0]
        yaw = yaw_of(pose)
        grips = grips_on(world, 0, yaw)
        script = Script(world, kinematics)
        script.grasp_together(grips)
        script.turn_together(pose[:3].astype(np.float64), grips, yaw_of(scene.spec.goals[0].pose) - yaw)
        script.wait(SETTLE_STEPS)
        script.end("turn")
        return script.plan()


class TurnWheelMonitor:
    """Judges the wheel's angle while both hands hold it."""

    def __init__(self, scene: TaskScene) -> None:
        start, goal = scene.spec.objects[0].pose, scene.spec.goals[0].pose
        self._turn = yaw_of(goal) - yaw_of(start)
        self._ladder = Ladder(3)

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: within 0.05 rad of the mark, held by both hands, at rest."""
        off = abs(world.joint_position(0) - self._turn)
        held = holding(world.finger_contacts(0))
        if off < ANGLE_TOLERANCE and held.all() and at_rest(world):
            return TaskStatus(success=True, progress=1.0)
        if held.all():
            progress = self._ladder.climb(3 if off < ANGLE_TOLERANCE else 2, closeness(off, abs(self._turn)))
        elif held.any():
            progress = self._ladder.climb(1)
        else:
            away = np.linalg.norm(world.tool_pose()[:, :3] - world.object_grasp()[0], axis=1)
            progress = self._ladder.climb(0, closeness(float(away.max()), 0.4))
        return TaskStatus(success=False, progress=progress)
