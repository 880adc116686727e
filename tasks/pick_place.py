"""Pick and place with either arm: a cube, a disc on the same side of the table, the arm of that side.

The arm is a function of the scene: the cube and its disc both lie on the left (y > 0) or both on the
right, at least 7 cm off the middle line, within that arm's reach. The other arm stays where it is.
"""

from __future__ import annotations

import numpy as np

from envs import BoxPart, ObjectSpec, PandaKinematics, make_pose
from envs.world import DualArmWorld
from tasks.assets import BLOCK_HALF, BLOCK_MASS, BLOCK_YAW, disc
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.domain import Draws, colour_words, domain_level
from tasks.judge import Ladder, closeness, holding, left_alone, lies_on, planar_distance, reach
from tasks.skills import PICK, PLACE, Script, arm_beside, on_block, set_down

GOAL_TOLERANCE = 0.03  # m, in the table plane
MIN_TRAVEL = 0.13  # m, between the cube and its goal
X_RANGE = (-0.22, 0.22)
SIDE_RANGE = (0.07, 0.33)  # m off the middle line, on the cube's side


class PickPlace:
    """The task `pick_place`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="pick_place",
            family="pick_place",
            arms="either",
            split="train",
            horizon=120,
            segments=(*PICK, *PLACE),
            description="Put a cube on a disc with the arm on whose side they lie.",
        )

    def draw(self, rng: np.random.Generator, domain: str) -> TaskScene:
        """A cube and a disc on one random side."""
        draws = Draws(rng, domain_level(domain))
        side = draws.sign("side")
        half = draws.size("cube_half", *BLOCK_HALF)
        cube_xy, goal_xy = self._positions(draws, side)
        yaw = draws.yaw("cube_yaw", BLOCK_YAW)
        cube_word, goal_word = draws.colours("colours", ("red", "green"))
        words = colour_words()
        cube = ObjectSpec(
            name="cube",
            parts=(BoxPart(half_size=(half, half, half)),),
            pose=make_pose((*cube_xy, half), yaw),
            mass=draws.physical("mass", BLOCK_MASS),
            friction=draws.physical("friction", 1.0),
            colour=words[cube_word],
        )
        goal = disc("goal", goal_xy, half, GOAL_TOLERANCE, goal_word)
        spec = draws.scene((cube,), (goal,))
        return TaskScene(spec=spec, instruction=f"put the {cube_word} cube on the {goal_word} disc", draws=draws.values)

    @staticmethod
    def _positions(draws: Draws, side: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Positions of cube and goal, drawn again until they are far enough apart."""
        names = ("cube_x", "cube_side", "goal_x", "goal_side")
        while True:
            cube = (draws.position(names[0], *X_RANGE), side * draws.position(names[1], *SIDE_RANGE))
            goal = (draws.position(names[2], *X_RANGE), side * draws.position(names[3], *SIDE_RANGE))
            if np.hypot(cube[0] - goal[0], cube[1] - goal[1]) >= MIN_TRAVEL:
                return cube, goal
            draws.redo(*names)

    def monitor(self, scene: TaskScene) -> PickPlaceMonitor:
        """A fresh judge."""
        return PickPlaceMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Reach, grasp, carry in one arch, let go, rise."""
        pose = world.object_pose()[0]
        arm = arm_beside(pose)
        script = Script(world, kinematics)
        script.pick({arm: on_block(pose)})
        script.place({arm: set_down(scene.spec.goals[0])})
        return script.plan()


class PickPlaceMonitor:
    """Judges a pick-and-place episode: reached, held, carried, there, let go."""

    def __init__(self, scene: TaskScene) -> None:
        self._goal = scene.spec.goals[0].pose
        self._half = scene.spec.objects[0].half_extents[2]
        self._start = planar_distance(scene.spec.objects[0].pose, self._goal)
        self._ladder = Ladder(4)

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: within 3 cm of the disc's centre, on the table, touched by no finger, at rest."""
        pose = world.object_pose()[0]
        touch = world.finger_contacts(0)
        distance = planar_distance(pose, self._goal)
        there = lies_on(pose, self._goal, self._half, GOAL_TOLERANCE)
        if there and left_alone(world, [touch]):
            return TaskStatus(success=True, progress=1.0)
        if there:
            progress = self._ladder.climb(4 if not touch.any() else 3)
        elif holding(touch).any() and pose[2] > self._half + 0.01:
            progress = self._ladder.climb(2, closeness(distance, self._start))
        elif holding(touch).any():
            progress = self._ladder.climb(1)
        else:
            progress = self._ladder.climb(0, closeness(reach(world, 0), 0.4))
        return TaskStatus(success=False, progress=progress)
