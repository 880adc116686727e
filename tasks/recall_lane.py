"""Recall: a block crosses the table by way of the middle, to the disc opposite the place where it lay.

While the block waits in the middle nothing in the scene says which of two lanes it came from: words, discs and arms are
the same for both. Who does not remember must guess, and the wrong disc ends the episode: chance is one half.
"""

from __future__ import annotations

import numpy as np

from envs import PandaKinematics
from envs.world import DualArmWorld
from tasks.assets import block, disc
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.draws import Draws
from tasks.judge import Ladder, closeness, holding, left_alone, lies_on, planar_distance, reach
from tasks.language import arm_word
from tasks.motion import ToolTarget
from tasks.skills import PICK, PLACE, RELEASE_ABOVE, Script, arm_beside, on_block, segments, set_down

GOAL_TOLERANCE = 0.02  # m, in the table plane
LANE_X = (0.05, 0.24)  # m, of the lanes before (+) and behind (-) the middle of the table
SIDE_RANGE = (0.17, 0.36)  # m: no arm reaches the other side
MIDDLE = 0.12  # m: a block within this of the middle line is on its way, within either arm's reach
PLACE_NOISE = 0.3  # share of the execution noise: the other arm picks up where this one is planned to put down
MOVES = ("out", "home")


class RecallLane:
    """The task `recall_lane`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="recall_lane",
            family="recall_lane",
            arms="both",
            split="train",
            horizon=300,
            segments=tuple(segment for move in MOVES for segment in segments((*PICK, *PLACE), move)),
            description="Bring a block across, by way of the middle, to the disc opposite the place where it lay.",
            instructions=(
                "[bring|carry|take] the {block} block across to the {goal} disc opposite the place where it lay",
                "by way of the middle, [put|place] the {block} block on the {goal} disc [in its lane|facing its place]",
                "the {arm} arm sets the {block} block down in the middle, the other one on the {goal} disc of its lane",
                "[move|pass] the {block} block straight across the table, to the {goal} disc in the lane it came from",
            ),
            heldout_instructions=(
                "the {block} block stays in its lane: [hand|bring] it over to that {goal} disc",
                "[remember|note] where the {block} block lies and put it on the {goal} disc across from there",
            ),
            goals=2,
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A block in one of two lanes on one side; at the end of each lane, on the other side, a disc.

        The discs mirror each other, so that all there is to choose is the lane: where the chosen one lies can be told
        from either.
        """
        side, lane = draws.sign("side"), draws.sign("lane")
        block_word, goal_word = draws.colours("colours", ("red", "blue"))
        xy = (lane * draws.position("block_x", *LANE_X), side * draws.position("block_y", *SIDE_RANGE))
        cube = block(draws, "block", xy, block_word)
        height = cube.half_extents[2]
        x, y = draws.position("goal_x", *LANE_X), -side * draws.position("goal_y", *SIDE_RANGE)
        goals = tuple(
            disc(f"{name}_goal", (sign * x, y), height, GOAL_TOLERANCE, goal_word, radius=0.05)
            for name, sign in (("front", 1), ("back", -1))
        )
        words = {"block": block_word, "goal": goal_word, "arm": arm_word(side)}
        return TaskScene(spec=draws.scene((cube,), goals), words=words)

    def monitor(self, scene: TaskScene) -> RecallLaneMonitor:
        """A fresh judge."""
        return RecallLaneMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """The arm that is nearer sets the block down in the middle; the other one brings it to its lane's disc."""
        pose, goal = world.object_pose()[0], scene.spec.goals[lane_of(scene)]
        first = arm_beside(np.asarray(scene.spec.objects[0].pose))
        middle = ToolTarget(position=(0.0, 0.0, goal.pose[2] + RELEASE_ABOVE))
        script = Script(world, kinematics)
        start = on_block(pose)
        if abs(pose[1]) > MIDDLE and arm_beside(pose) == first:
            script.pick({first: start}, of=MOVES[0])
            script.place({first: middle}, of=MOVES[0], noise=PLACE_NOISE)
            script.arms[first].leave()
            start = middle.raised(-RELEASE_ABOVE)
        script.pick({1 - first: start}, of=MOVES[1])
        script.place({1 - first: set_down(goal)}, of=MOVES[1])
        return script.plan()


def lane_of(scene: TaskScene) -> int:
    """Which disc is in the lane where the block lay: 0 in front, 1 behind."""
    return 0 if scene.spec.objects[0].pose[0] > 0.0 else 1


class RecallLaneMonitor:
    """Judges a crossing: on the disc of the block's own lane, let go, at rest, and never left on the other one."""

    def __init__(self, scene: TaskScene) -> None:
        lane, goals = lane_of(scene), scene.spec.goals
        self._goal, self._wrong = goals[lane].pose, goals[1 - lane].pose
        self._start = scene.spec.objects[0].pose
        self._half = scene.spec.objects[0].half_extents[2]
        self._ladder = Ladder(3)
        self._lost = False

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: within 2 cm of its own disc's centre, on the table, untouched, at rest."""
        pose, touch = world.object_pose()[0], world.finger_contacts(0)
        alone = left_alone(world, [touch])
        self._lost |= alone and lies_on(pose, self._wrong, self._half, GOAL_TOLERANCE)
        if not self._lost and alone and lies_on(pose, self._goal, self._half, GOAL_TOLERANCE):
            return TaskStatus(success=True, progress=1.0)
        done = closeness(abs(float(pose[1] - self._goal[1])), abs(self._start[1] - self._goal[1]))
        if not self._lost and lies_on(pose, self._goal, self._half, GOAL_TOLERANCE):
            progress = self._ladder.climb(3)
        elif abs(float(pose[1])) < MIDDLE or pose[1] * self._start[1] < 0:
            progress = self._ladder.climb(2, 0.0 if self._lost else closeness(planar_distance(pose, self._goal), 0.4))
        elif holding(touch).any():
            progress = self._ladder.climb(1, done)
        else:
            progress = self._ladder.climb(0, closeness(reach(world, 0), 0.4))
        return TaskStatus(success=False, progress=progress)
