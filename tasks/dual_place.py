"""Dual place: a block and a disc on either side; both arms place theirs at the same time."""

from __future__ import annotations

from envs import PandaKinematics
from envs.world import DualArmWorld
from tasks.assets import block, disc
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.draws import Draws
from tasks.judge import Ladder, closeness, holding, left_alone, lies_on, planar_distance, reach
from tasks.skills import PICK, PLACE, Script, on_block, set_down

GOAL_TOLERANCE = 0.03  # m, in the table plane
MIN_TRAVEL = 0.13  # m, between a block and its disc
X_RANGE, SIDE_RANGE = (-0.20, 0.20), (0.12, 0.32)  # m
TIME_LIMIT_S = 0.5  # the second block must leave the table at most this long after the first


class DualPlace:
    """The task `dual_place`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="dual_place",
            family="dual_place",
            arms="both",
            split="train",
            horizon=180,
            segments=(*PICK, *PLACE),
            description="Both arms put their blocks on their discs at the same time.",
            instructions=(
                "both arms at once: [put|place|set] the {left} block on the {left_goal} disc, the {right} one on the "
                "{right_goal} disc",
                "[put|place] the {left} block on the {left_goal} disc [while|as] the {right} block goes on the "
                "{right_goal} disc",
                "[place|set down] both blocks at once: {left} on {left_goal}, {right} on {right_goal}",
                "both arms together: {left} block to the {left_goal} disc, {right} block to the {right_goal} disc",
            ),
            heldout_instructions=(
                "{left} belongs on {left_goal} and {right} on {right_goal}, use [both arms|two hands] simultaneously",
            ),
            objects=2,
            goals=2,
        )

    def draw(self, draws: Draws) -> TaskScene:
        """Left block and disc, right block and disc."""
        words = draws.colours("colours", ("red", "blue", "green", "yellow"))
        blocks, goals = [], []
        for i, (name, side) in enumerate((("left", 1), ("right", -1))):
            start, end = draws.apart(
                (f"{name}_block", f"{name}_goal"), X_RANGE, (side * SIDE_RANGE[0], side * SIDE_RANGE[1]), MIN_TRAVEL
            )
            blocks.append(block(draws, f"{name}_block", start, words[i]))
            height = blocks[-1].half_extents[2]
            goals.append(disc(f"{name}_goal", end, height, GOAL_TOLERANCE, words[i + 2]))
        left, right, left_goal, right_goal = words
        return TaskScene(
            spec=draws.scene(tuple(blocks), tuple(goals)),
            words={"left": left, "right": right, "left_goal": left_goal, "right_goal": right_goal},
        )

    def monitor(self, scene: TaskScene) -> DualPlaceMonitor:
        """A fresh judge."""
        return DualPlaceMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Reach, grasp, carry, let go, rise: both arms in every segment."""
        script = Script(world, kinematics)
        picks, places = {}, {}
        for arm, (pose, goal) in enumerate(zip(world.object_pose(), scene.spec.goals, strict=True)):
            picks[arm], places[arm] = on_block(pose), set_down(goal)
        script.pick(picks)
        script.place(places)
        return script.plan()


class DualPlaceMonitor:
    """Judges a dual placement: both lifted at about the same time, both there, both let go."""

    def __init__(self, scene: TaskScene) -> None:
        self._goals = [goal.pose for goal in scene.spec.goals]
        self._half = [spec.half_extents[2] for spec in scene.spec.objects]
        self._lifted: list[float | None] = [None, None]  # when last, s
        self._in_air = [False, False]
        self._steps = 0
        self._ladder = Ladder(4)

    @property
    def _at_once(self) -> bool:
        left, right = self._lifted
        return left is not None and right is not None and abs(left - right) <= TIME_LIMIT_S

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: both blocks on their discs, lifted within half a second of each other, no finger, at rest."""
        poses = world.object_pose()
        self._steps += 1
        touch = [world.finger_contacts(i) for i in (0, 1)]
        held = [bool(holding(touch[i])[i]) for i in (0, 1)]
        for i in (0, 1):
            in_air = poses[i][2] > self._half[i] + 0.02
            if held[i] and in_air and not self._in_air[i]:
                self._lifted[i] = self._steps / world.control_freq
            self._in_air[i] = in_air
        distance = [planar_distance(poses[i], self._goals[i]) for i in (0, 1)]
        there = [lies_on(poses[i], self._goals[i], self._half[i], GOAL_TOLERANCE) for i in (0, 1)]
        if self._at_once and all(there) and left_alone(world, touch):
            return TaskStatus(success=True, progress=1.0)
        if all(there):
            progress = self._ladder.climb(3)
        elif self._at_once:
            progress = self._ladder.climb(2, closeness(max(distance), 0.3))
        elif any(held):
            progress = self._ladder.climb(1)
        else:
            progress = self._ladder.climb(0, closeness(max(reach(world, 0), reach(world, 1)), 0.4))
        return TaskStatus(success=False, progress=progress)
