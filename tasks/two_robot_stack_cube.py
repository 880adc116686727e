"""ManiSkill's TwoRobotStackCube-v1: a cube on either side, one of them wanted on a disc that is far from its arm.

The predicate is that of mani_skill 3.0.1, `envs/tasks/tabletop/two_robot_stack_cube.py`, and so are the ranges but for
those along x, which are wider; see `tasks.maniskill`. Its cubeB (green) is the `lower` one here, its cubeA (blue) the
`upper` one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from envs import PandaKinematics
from envs.world import DualArmWorld
from tasks.assets import disc
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.draws import Draws
from tasks.judge import Ladder, at_rest, closeness, holding, planar_distance, reach
from tasks.maniskill import FAR_ARM, FAR_NOISE, NEAR_ARM, X_RANGE, arena, cube
from tasks.motion import ToolTarget
from tasks.skills import PICK, PLACE, RELEASE_ABOVE, Script, on_block, segments

GOAL_RADIUS, GOAL_Y = 0.06, -0.10  # m
OFFSET_SLACK = 0.005  # m, on top of half a cube's diagonal, between the cubes' centres in the table plane
HEIGHT_TOLERANCE = 0.005  # m
LEAN = float(np.deg2rad(-25.0))  # of the far arm's tool: straight down it does not reach the disc
SHORT_OF_CENTRE = 0.03  # m: the lower cube goes that much nearer to its arm than the disc's centre
WAITING_Y, WAITING_Z = -0.27, 0.22  # m, where the upper cube waits in the hand
STACK_ABOVE = 0.002  # m more than on the table: a cube may hang a little low in the hand, and would push


class TwoRobotStackCube:
    """The task `two_robot_stack_cube`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="two_robot_stack_cube",
            family="two_robot_stack_cube",
            arms="both",
            split="train",
            horizon=220,
            segments=(*PICK, "lift", *segments(PLACE, "lower"), *segments(PLACE, "upper")),
            description="ManiSkill's TwoRobotStackCube: one arm puts its cube on the disc, the other stacks its own.",
            instructions=(
                "[put|place|set] the {lower} cube on the {goal} disc and [stack|put] the {upper} cube on it",
                "[stack|put] the {upper} cube on the {lower} cube, and that on the {goal} disc",
                "[build|make] a [tower|stack] on the {goal} disc, {lower} cube below, {upper} cube above",
            ),
            heldout_instructions=("the {upper} cube [belongs|goes] on the {lower} one, which goes on the {goal} disc",),
            objects=2,
        )

    def draw(self, draws: Draws) -> TaskScene:
        """The lower cube at y in [0.1, 0.2] m, the upper one in [-0.2, -0.1] m, the disc at y = -0.1 m."""
        lower_word, upper_word, goal_word = draws.colours("colours", ("green", "blue", "red"))
        cubes = (cube(draws, "lower", FAR_ARM, lower_word), cube(draws, "upper", NEAR_ARM, upper_word))
        xy = (draws.position("goal_x", *X_RANGE), GOAL_Y)
        goal = disc("goal", xy, cubes[0].half_extents[2], GOAL_RADIUS, goal_word, radius=GOAL_RADIUS)
        return TaskScene(
            spec=arena(draws, cubes, goal),
            words={"lower": lower_word, "upper": upper_word, "goal": goal_word},
        )

    def monitor(self, scene: TaskScene) -> TwoRobotStackCubeMonitor:
        """A fresh judge."""
        return TwoRobotStackCubeMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Both arms pick, since the upper cube may lie on the disc; the far arm places, the near arm stacks."""
        lower, upper = world.object_pose()
        x, y, z = scene.spec.goals[0].pose[:3]
        put = ToolTarget(position=(x, y + SHORT_OF_CENTRE, z + RELEASE_ABOVE), tilt=LEAN)
        grasps = {FAR_ARM: replace(on_block(lower), tilt=LEAN), NEAR_ARM: on_block(upper)}
        waiting = replace(grasps[NEAR_ARM], position=(float(upper[0]), WAITING_Y, WAITING_Z))
        script = Script(world, kinematics)
        near, far = script.arms[NEAR_ARM], script.arms[FAR_ARM]
        script.pick(grasps, noise=FAR_NOISE)
        near.go(waiting, depart=0.10)
        far.go(grasps[FAR_ARM].raised(0.10))
        script.end("lift")
        script.place({FAR_ARM: put}, of="lower", depart=0.0, noise=FAR_NOISE)
        far.leave()
        on_top = replace(put, tilt=0.0).raised(sum(s.half_extents[2] for s in scene.spec.objects) + STACK_ABOVE)
        script.place({NEAR_ARM: on_top}, of="upper", depart=0.0, noise=FAR_NOISE)
        near.leave()
        script.end("retreat upper")
        return script.plan()


class TwoRobotStackCubeMonitor:
    """Judges as ManiSkill's `evaluate`, and asks for rest besides."""

    def __init__(self, scene: TaskScene) -> None:
        self._goal = scene.spec.goals[0].pose
        self._half = [spec.half_extents[2] for spec in scene.spec.objects]
        self._ladder = Ladder(5)

    def placed(self, world: DualArmWorld) -> bool:
        """ManiSkill's `cubeB_placed`: the lower cube's centre within 6 cm of the disc's, in the table plane."""
        return planar_distance(world.object_pose()[0], self._goal) < GOAL_RADIUS

    def stacked(self, world: DualArmWorld) -> bool:
        """ManiSkill's `is_cubeA_on_cubeB`: within 33.3 mm in the table plane, a cube higher within 5 mm."""
        lower, upper = world.object_pose()
        rise = abs(float(upper[2] - lower[2]) - sum(self._half))
        offset = float(np.hypot(self._half[1], self._half[1])) + OFFSET_SLACK
        return planar_distance(lower, upper) <= offset and rise <= HEIGHT_TOLERANCE

    def grasped(self, world: DualArmWorld) -> tuple[bool, bool]:
        """ManiSkill's `is_cubeB_grasped` and `is_cubeA_grasped`: by the arm that each cube belongs to."""
        lower, upper = (holding(world.finger_contacts(index)) for index in (0, 1))
        return bool(lower[FAR_ARM]), bool(upper[NEAR_ARM])

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: the lower cube on the disc, the upper one on it, neither grasped, both at rest."""
        placed, stacked, (lower, upper) = self.placed(world), self.stacked(world), self.grasped(world)
        free = not (lower or upper)
        if placed and stacked and free and at_rest(world, 0) and at_rest(world, 1):
            return TaskStatus(success=True, progress=1.0)
        pose = world.object_pose()
        if placed and stacked:
            progress = self._ladder.climb(4)
        elif placed and not lower and upper:
            progress = self._ladder.climb(3, closeness(planar_distance(pose[0], pose[1]), 0.3))
        elif placed:
            progress = self._ladder.climb(2)
        elif lower:
            progress = self._ladder.climb(1, closeness(planar_distance(pose[0], self._goal), 0.4))
        else:
            progress = self._ladder.climb(0, closeness(reach(world, 0), 0.4))
        return TaskStatus(success=False, progress=progress)
