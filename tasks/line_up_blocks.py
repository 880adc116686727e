"""Line up: three blocks of different sizes go onto a row of discs, from the smallest to the largest."""

from __future__ import annotations

from envs import PandaKinematics
from envs.world import DualArmWorld
from tasks.assets import block, disc
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.draws import Draws
from tasks.judge import Ladder, closeness, holding, left_alone, lies_on, planar_distance, reach
from tasks.skills import PICK, PLACE, Script, arm_beside, on_block, segments, set_down

GOAL_TOLERANCE = 0.03  # m, in the table plane
SIZES = ((0.0145, 0.0165), (0.0185, 0.0205), (0.0225, 0.0245))  # m, half edges: small, middle, large
NAMES = ("small", "middle", "large")
SPACING = 0.085  # m, between discs
ROW_X, ROW_Y = (-0.05, 0.05), (-0.03, 0.03)
CELLS = ((-0.16, 0.20), (0.16, 0.20), (-0.16, -0.20), (0.16, -0.20))  # m, where blocks may start
CELL_HALF = (0.05, 0.06)  # m


class LineUpBlocks:
    """The task `line_up_blocks`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="line_up_blocks",
            family="line_up_blocks",
            arms="both",
            split="train",
            horizon=350,
            segments=tuple(segment for name in NAMES for segment in segments((*PICK, *PLACE), name)),
            description="Put three blocks on a row of discs, from the smallest to the largest.",
            instructions=(
                "[line up|order|sort] the blocks on the {goal} discs from the smallest to the largest",
                "[put|place|set] the blocks on the row of {goal} discs by size, [smallest|small ones] first",
                "small {small}, middle {middle}, large {large}: put them on the {goal} discs in this order",
            ),
            heldout_instructions=(
                "make a row of [growing|increasing] blocks on the {goal} discs",
                "arrange {small}, {middle} and {large} by size on the {goal} discs",
            ),
            objects=3,
            goals=3,
        )

    def draw(self, draws: Draws) -> TaskScene:
        """Three of four cells hold a block each; the row runs along x through the middle of the table."""
        words = draws.colours("colours", ("red", "blue", "green", "white"))
        cells = draws.order("cells", len(CELLS))
        blocks = []
        for i, name in enumerate(NAMES):
            x, y = CELLS[cells[i]]
            where = (
                draws.position(f"{name}_x", x - CELL_HALF[0], x + CELL_HALF[0]),
                draws.position(f"{name}_y", y - CELL_HALF[1], y + CELL_HALF[1]),
            )
            blocks.append(block(draws, name, where, words[i], half=SIZES[i]))
        x, y = draws.position("row_x", *ROW_X), draws.position("row_y", *ROW_Y)
        goals = tuple(
            disc(f"{name}_goal", (x + (i - 1) * SPACING, y), b.half_extents[2], GOAL_TOLERANCE, words[3], radius=0.032)
            for i, (name, b) in enumerate(zip(NAMES, blocks, strict=True))
        )
        return TaskScene(
            spec=draws.scene(tuple(blocks), goals), words={**dict(zip(NAMES, words, strict=False)), "goal": words[3]}
        )

    def monitor(self, scene: TaskScene) -> LineUpMonitor:
        """A fresh judge."""
        return LineUpMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Block by block but those that lie there, by the arm on whose side it is; an arm leaves before one comes."""
        script = Script(world, kinematics)
        for index, name in enumerate(NAMES):
            pose = world.object_pose()[index]
            goal = scene.spec.goals[index]
            if lies_on(pose, goal.pose, goal.pose[2], GOAL_TOLERANCE / 2):
                continue
            arm = arm_beside(pose)
            script.pick({arm: on_block(pose)}, of=name)
            script.place({arm: set_down(goal)}, of=name)
            script.arms[arm].leave()
        script.end(f"retreat {NAMES[-1]}")
        return script.plan()


class LineUpMonitor:
    """Judges a row: each block on its own disc, let go, at rest."""

    def __init__(self, scene: TaskScene) -> None:
        self._goals = [goal.pose for goal in scene.spec.goals]
        self._half = [spec.half_extents[2] for spec in scene.spec.objects]
        self._ladder = Ladder(2 * len(NAMES))

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: every block within 3 cm of its disc's centre, on the table, touched by no finger, at rest."""
        poses, indices = world.object_pose(), range(len(NAMES))
        touch = [world.finger_contacts(i) for i in indices]
        distance = [planar_distance(poses[i], self._goals[i]) for i in indices]
        done = [
            lies_on(poses[i], self._goals[i], self._half[i], GOAL_TOLERANCE) and not touch[i].any() for i in indices
        ]
        if all(done) and left_alone(world, touch):
            return TaskStatus(success=True, progress=1.0)
        held = [i for i in indices if holding(touch[i]).any() and not done[i]]
        if held:
            progress = self._ladder.climb(2 * sum(done) + 1, closeness(distance[held[0]], 0.4))
        else:
            left = [i for i in indices if not done[i]]
            progress = self._ladder.climb(2 * sum(done), closeness(reach(world, left[0]), 0.4) if left else 0.0)
        return TaskStatus(success=False, progress=progress)
