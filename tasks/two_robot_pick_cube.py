"""ManiSkill's TwoRobotPickCube-v1: a cube lies within one arm's reach, its goal in the air within the other's.

The predicate is that of mani_skill 3.0.1, `envs/tasks/tabletop/two_robot_pick_cube.py`, and so are the ranges but for
those along x, which are wider; see `tasks.maniskill`.
"""

from __future__ import annotations

import numpy as np

from envs import ARM_DOF, GoalSpec, PandaKinematics, make_pose
from envs.world import DualArmWorld
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.judge import Ladder, at_rest, closeness, holding
from tasks.maniskill import FAR_ARM, FAR_NOISE, NEAR_ARM, NEAR_RANGE, X_RANGE, arena, cube, side_of
from tasks.motion import ToolTarget
from tasks.skills import PICK, PLACE, RELEASE_ABOVE, SETTLE_STEPS, Script, on_block, segments

GOAL_THRESHOLD = 0.025  # m
GOAL_HEIGHT = (0.02, 0.32)  # m, of the cube's centre
STATIC_SPEED = 0.2  # rad/s, of every joint of the arm that ends with the cube
MIDDLE_Y, MIDDLE_EDGE = 0.0, -0.04  # m, where the cube changes hands: both arms reach it; and from where it is there


class TwoRobotPickCube:
    """The task `two_robot_pick_cube`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="two_robot_pick_cube",
            family="two_robot_pick_cube",
            arms="both",
            split="train",
            horizon=220,
            segments=(*segments((*PICK, *PLACE), "to pass"), *segments(PICK, "to take"), "raise"),
            description="ManiSkill's TwoRobotPickCube: one arm passes a cube on, the other one holds it at the goal.",
            instructions=(
                "[pass|hand] the {cube} cube from right to left and hold it in the {goal} frame",
                "[move|bring|carry] the {cube} cube to the left arm, which [holds|keeps] it in the {goal} frame",
                "the right arm [passes|gives] the {cube} cube on, the left one [raises|takes] it into the {goal} frame",
            ),
            heldout_instructions=(
                "[let|have] the {goal} frame be filled by the {cube} cube, with help from both arms",
            ),
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A cube at y in [-0.2, -0.1] m, its goal at y in [0.1, 0.2] m and up to 0.3 m high."""
        cube_word, goal_word = draws.colours("colours", ("red", "green"))
        goal = GoalSpec(
            name="goal",
            pose=make_pose(
                (
                    draws.position("goal_x", *X_RANGE),
                    side_of(FAR_ARM) * draws.position("goal_side", *NEAR_RANGE),
                    draws.position("goal_z", *GOAL_HEIGHT),
                )
            ),
            tolerance=(GOAL_THRESHOLD, GOAL_THRESHOLD, GOAL_THRESHOLD),
            marker="frame",
            marker_half_size=(GOAL_THRESHOLD, GOAL_THRESHOLD, GOAL_THRESHOLD),
            colour=colour_words()[goal_word],
        )
        return TaskScene(
            spec=arena(draws, (cube(draws, "cube", NEAR_ARM, cube_word),), goal),
            words={"cube": cube_word, "goal": goal_word},
        )

    def monitor(self, scene: TaskScene) -> TwoRobotPickCubeMonitor:
        """A fresh judge."""
        return TwoRobotPickCubeMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """The near arm puts the cube down in the middle and goes home, the far arm takes it up to the goal."""
        pose = world.object_pose()[0]
        x, y, z = scene.spec.goals[0].pose[:3]
        middle = ToolTarget(position=(0.5 * (float(pose[0]) + x), MIDDLE_Y, float(pose[2])))
        script = Script(world, kinematics)
        near, far = script.arms[NEAR_ARM], script.arms[FAR_ARM]
        script.pick({NEAR_ARM: on_block(pose)}, of="to pass")
        script.place({NEAR_ARM: middle.raised(RELEASE_ABOVE)}, of="to pass", noise=FAR_NOISE)
        near.leave()
        script.pick({FAR_ARM: middle}, of="to take", noise=FAR_NOISE)
        far.go(ToolTarget(position=(x, y, z)), depart=0.06, approach=0.06)
        far.wait(SETTLE_STEPS)
        script.end("raise")
        return script.plan()


class TwoRobotPickCubeMonitor:
    """Judges as ManiSkill's `evaluate`, and asks for rest besides."""

    def __init__(self, scene: TaskScene) -> None:
        self._goal = np.asarray(scene.spec.goals[0].pose)
        self._ladder = Ladder(4)

    def placed(self, world: DualArmWorld) -> bool:
        """ManiSkill's `is_obj_placed`: the cube's centre within 2.5 cm of the goal."""
        return self._distance(world) <= GOAL_THRESHOLD

    def static(self, world: DualArmWorld) -> bool:
        """ManiSkill's `is_right_arm_static`: no joint of the far arm is faster than 0.2 rad/s."""
        return bool(np.abs(world.arm_qvel()[FAR_ARM, :ARM_DOF]).max() <= STATIC_SPEED)

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: the cube at the goal, the far arm static, the cube at rest."""
        cube = world.object_pose()[0]
        if self.placed(world) and self.static(world) and at_rest(world):
            return TaskStatus(success=True, progress=1.0)
        held = holding(world.finger_contacts(0))
        if held[FAR_ARM]:
            progress = self._ladder.climb(3, closeness(self._distance(world), 0.5))
        elif held[NEAR_ARM]:
            progress = self._ladder.climb(1, closeness(abs(float(cube[1]) - MIDDLE_Y), 0.3))
        elif cube[1] > MIDDLE_EDGE:
            progress = self._ladder.climb(2, closeness(self._gap(world, FAR_ARM), 0.4))
        else:
            progress = self._ladder.climb(0, closeness(self._gap(world, NEAR_ARM), 0.4))
        return TaskStatus(success=False, progress=progress)

    def _distance(self, world: DualArmWorld) -> float:
        return float(np.linalg.norm(world.object_pose()[0, :3] - self._goal[:3]))

    @staticmethod
    def _gap(world: DualArmWorld, arm: int) -> float:
        return float(np.linalg.norm(world.tool_pose()[arm, :3] - world.object_pose()[0, :3]))
