"""Pick and place with either arm: a cube, a disc on the same side of the table, the arm of that side.

The arm is a function of the scene: the cube and its disc both lie on the left (y > 0) or both on the
right, at least 7 cm off the middle line, within that arm's reach. The other arm stays where it is.
"""

from __future__ import annotations

from envs import PandaKinematics
from envs.world import DualArmWorld
from tasks.assets import block, disc
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.draws import Draws
from tasks.judge import Ladder, closeness, holding, left_alone, lies_on, planar_distance, reach
from tasks.language import arm_word
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
            horizon=160,
            segments=(*PICK, *PLACE),
            description="Put a cube on a disc with the arm on whose side they lie.",
            instructions=(
                "[put|place|set] the {cube} cube on the {goal} disc",
                "[pick up|take] the {cube} cube and put it [on|down on] the {goal} disc",
                "with the {arm} arm, [put|place] the {cube} cube on the {goal} disc",
                "move the {cube} cube to the {goal} disc",
            ),
            heldout_instructions=(
                "the {cube} cube belongs on the {goal} disc",
                "[bring|carry] the {cube} cube over to the {goal} disc with your {arm} hand",
            ),
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A cube and a disc on one random side."""
        side = draws.sign("side")
        sides = (side * SIDE_RANGE[0], side * SIDE_RANGE[1])
        cube_xy, goal_xy = draws.apart(("cube", "goal"), X_RANGE, sides, MIN_TRAVEL)
        cube_word, goal_word = draws.colours("colours", ("red", "green"))
        cube = block(draws, "cube", cube_xy, cube_word)
        goal = disc("goal", goal_xy, cube.half_extents[2], GOAL_TOLERANCE, goal_word)
        return TaskScene(
            spec=draws.scene((cube,), (goal,)), words={"cube": cube_word, "goal": goal_word, "arm": arm_word(side)}
        )

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
