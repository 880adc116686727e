"""Swap: each block lies on the other one's disc, out of the other arm's reach; both go by way of the middle."""

from __future__ import annotations

from envs import PandaKinematics
from envs.world import DualArmWorld
from tasks.assets import block, disc
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.draws import Draws
from tasks.judge import Ladder, closeness, holding, left_alone, lies_on, planar_distance, reach
from tasks.motion import ToolTarget
from tasks.skills import PICK, PLACE, RELEASE_ABOVE, Script, on_block, segments, set_down

GOAL_TOLERANCE = 0.02  # m, in the table plane
X_RANGE, SIDE_RANGE = (-0.18, 0.18), (0.20, 0.31)  # m: no arm reaches the other side
SPOT_X = 0.085  # m, of the free places in the middle, before and behind it
ON_DISC = 0.01  # m, how far a block may lie off the wrong disc's centre
HAND_NOISE = 0.3  # share of the execution noise: the other arm picks up where this one is planned to put down
MOVES = ("first out", "second out", "second home", "first home")


class SwapBlocks:
    """The task `swap_blocks`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="swap_blocks",
            family="swap_blocks",
            arms="both",
            split="train",
            horizon=430,
            segments=tuple(segment for move in MOVES for segment in segments((*PICK, *PLACE), move)),
            description="Swap two blocks that lie on each other's discs, by way of the middle of the table.",
            instructions=(
                "[swap|exchange] the {left} and the {right} block so that each lies on its own disc",
                "[put|bring|move] the {left} block to the {left} disc and the {right} block to the {right} disc",
                "[swap|exchange] the blocks by way of the middle: {left} to the right, {right} to the left",
                "the {left} and the {right} block must [trade|change] places",
                "each arm [passes|hands] its block to the other one through the middle: {left} and {right}",
            ),
            heldout_instructions=(
                "[sort|rearrange] the blocks: {left} on {left}, {right} on {right}",
                "the {left} block and the {right} block each lie where the other belongs, put that right",
            ),
            objects=2,
            goals=2,
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A disc on either side with the other disc's block on it; the left block is listed first."""
        words = draws.colours("colours", ("red", "blue"))
        places = [
            (draws.position(f"{name}_x", *X_RANGE), side * draws.position(f"{name}_y", *SIDE_RANGE))
            for name, side in (("left", 1.0), ("right", -1.0))
        ]
        blocks, goals = [], []
        for i, name in enumerate(("left", "right")):
            dx, dy = (draws.position(f"{name}_off_{axis}", -ON_DISC, ON_DISC) for axis in "xy")
            blocks.append(block(draws, f"{name}_block", (places[i][0] + dx, places[i][1] + dy), words[i]))
            height = blocks[i].half_extents[2]
            goals.append(disc(f"{name}_goal", places[1 - i], height, GOAL_TOLERANCE, words[i], radius=0.05))
        return TaskScene(
            spec=draws.scene(tuple(blocks), tuple(goals)), words=dict(zip(("left", "right"), words, strict=True))
        )

    def monitor(self, scene: TaskScene) -> SwapBlocksMonitor:
        """A fresh judge."""
        return SwapBlocksMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Left and right put their blocks down in the middle; then each takes the other's and brings it home."""
        poses, goals = world.object_pose(), scene.spec.goals
        front = 0 if poses[0][0] > poses[1][0] else 1  # the block that goes through the place farther along x
        spots = [
            ToolTarget(position=(SPOT_X if i == front else -SPOT_X, 0.0, goals[i].pose[2] + RELEASE_ABOVE))
            for i in (0, 1)
        ]
        script = Script(world, kinematics)
        moves = (
            (0, on_block(poses[0]), spots[0]),
            (1, on_block(poses[1]), spots[1]),
            (0, spots[1].raised(-RELEASE_ABOVE), set_down(goals[1])),
            (1, spots[0].raised(-RELEASE_ABOVE), set_down(goals[0])),
        )
        for move, (arm, start, end) in zip(MOVES, moves, strict=True):
            script.pick({arm: start}, of=move, noise=HAND_NOISE)
            script.place({arm: end}, of=move, noise=HAND_NOISE)
            script.arms[arm].leave()
        script.end(f"retreat {MOVES[-1]}")
        return script.plan()


class SwapBlocksMonitor:
    """Judges a swap: each block on its own disc, let go, at rest."""

    def __init__(self, scene: TaskScene) -> None:
        self._goals = [goal.pose for goal in scene.spec.goals]
        self._half = [spec.half_extents[2] for spec in scene.spec.objects]
        self._way = planar_distance(*self._goals)
        self._ladder = Ladder(3)

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: both blocks within 2 cm of their own discs' centres, on the table, untouched, at rest."""
        poses = world.object_pose()
        touch = [world.finger_contacts(i) for i in (0, 1)]
        there = [lies_on(poses[i], self._goals[i], self._half[i], GOAL_TOLERANCE) for i in (0, 1)]
        if all(there) and left_alone(world, touch):
            return TaskStatus(success=True, progress=1.0)
        way = sum(closeness(planar_distance(poses[i], self._goals[i]), self._way) for i in (0, 1)) / 2.0
        if any(there):
            progress = self._ladder.climb(3 if all(there) else 2, way)
        elif way > 0.05 or any(holding(t).any() for t in touch):
            progress = self._ladder.climb(1, way)
        else:
            progress = self._ladder.climb(0, closeness(min(reach(world, i) for i in (0, 1)), 0.4))
        return TaskStatus(success=False, progress=progress)
