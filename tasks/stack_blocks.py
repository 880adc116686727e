"""Stack two blocks: one lies on either side; one arm puts its block on the disc, the other one its own on top."""

from __future__ import annotations

from envs import PandaKinematics
from envs.world import DualArmWorld
from tasks.assets import block, disc
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.draws import Draws
from tasks.judge import Ladder, closeness, holding, left_alone, lies_on, planar_distance, reach
from tasks.language import arm_word
from tasks.motion import ToolTarget
from tasks.skills import PICK, PLACE, RELEASE_ABOVE, Script, arm_beside, on_block, segments

GOAL_TOLERANCE = 0.03  # m, of the lower block, in the table plane
OFFSET_LIMIT = 0.018  # m, between the blocks' centres: beyond, the upper one stands on too little
X_RANGE, SIDE_RANGE = (-0.18, 0.18), (0.14, 0.32)  # m
GOAL_X, GOAL_Y = (-0.12, 0.12), (-0.03, 0.03)
STACK_ABOVE = 0.002  # m more than on the table: a block may hang a little low in the hand, and would push
PICK_NOISE = 0.3  # likewise where the hand closes: a block held 2 cm off its middle is set down 2 cm off
PLACE_NOISE = 0.3  # share of the execution noise: all of it moves a far tool by 2 cm, and the block falls


class StackBlocks:
    """The task `stack_blocks`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="stack_blocks",
            family="stack_blocks",
            arms="both",
            split="train",
            horizon=280,
            segments=(*segments((*PICK, *PLACE), "lower"), *segments((*PICK, *PLACE), "upper")),
            description="One arm puts its block on the disc, the other one stacks its own on top.",
            instructions=(
                "[stack|put|set] the {upper} block on the {lower} block on the {goal} disc",
                "[put|place] the {lower} block on the {goal} disc and [stack|set] the {upper} one on top",
                "[build|make] a tower on the {goal} disc: {lower} below, {upper} above",
                "{arm} arm first: stack the {lower} and the {upper} block on the {goal} disc",
            ),
            heldout_instructions=("the {goal} disc shall [bear|carry] the {lower} block, and that the {upper} one",),
            objects=2,
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A block on either side, a disc in the middle; the lower block, listed first, lies on a random side."""
        side = draws.sign("lower_side")
        lower_word, upper_word, goal_word = draws.colours("colours", ("red", "blue", "green"))
        blocks = []
        for name, where, word in (("lower", side, lower_word), ("upper", -side, upper_word)):
            xy = (draws.position(f"{name}_x", *X_RANGE), where * draws.position(f"{name}_side", *SIDE_RANGE))
            blocks.append(block(draws, name, xy, word))
        xy = (draws.position("goal_x", *GOAL_X), draws.position("goal_y", *GOAL_Y))
        goal = disc("goal", xy, blocks[0].half_extents[2], GOAL_TOLERANCE, goal_word)
        return TaskScene(
            spec=draws.scene(tuple(blocks), (goal,)),
            words={"lower": lower_word, "upper": upper_word, "goal": goal_word, "arm": arm_word(side)},
        )

    def monitor(self, scene: TaskScene) -> StackBlocksMonitor:
        """A fresh judge."""
        return StackBlocksMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """The arm on the lower block's side places it and goes home; the other one stacks. A placed block stays."""
        x, y, z = scene.spec.goals[0].pose[:3]
        lower, upper = (spec.half_extents[2] for spec in scene.spec.objects)
        script = Script(world, kinematics)
        height = z + RELEASE_ABOVE
        for index, name in enumerate(("lower", "upper")):
            pose = world.object_pose()[index]
            if lies_on(pose, (x, y), height - RELEASE_ABOVE, GOAL_TOLERANCE / 2):
                height = float(pose[2]) + lower + upper + RELEASE_ABOVE + STACK_ABOVE
                x, y = float(pose[0]), float(pose[1])
                continue
            arm = arm_beside(pose)
            script.pick({arm: on_block(pose)}, of=name, noise=PICK_NOISE)
            script.place({arm: ToolTarget(position=(x, y, height))}, of=name, noise=PLACE_NOISE)
            script.arms[arm].leave()
            height += lower + upper + STACK_ABOVE
        script.end("retreat upper")
        return script.plan()


class StackBlocksMonitor:
    """Judges a stack: lower on the disc, upper on the lower, let go, at rest."""

    def __init__(self, scene: TaskScene) -> None:
        self._goal = scene.spec.goals[0].pose
        self._half = [spec.half_extents[2] for spec in scene.spec.objects]
        self._ladder = Ladder(6)

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: the lower block within 3 cm of the disc's centre, the upper one on it, no finger, all at rest."""
        lower, upper = world.object_pose()
        touch = [world.finger_contacts(i) for i in (0, 1)]
        there = lies_on(lower, self._goal, self._half[0], GOAL_TOLERANCE)
        on_top = lies_on(upper, lower, float(lower[2]) + sum(self._half), OFFSET_LIMIT)
        if there and on_top and left_alone(world, touch):
            return TaskStatus(success=True, progress=1.0)
        held = [bool(holding(t).any()) for t in touch]
        if there and on_top:
            progress = self._ladder.climb(5)
        elif there and held[1]:
            progress = self._ladder.climb(4, closeness(planar_distance(upper, lower), 0.3))
        elif there:
            progress = self._ladder.climb(3, closeness(reach(world, 1), 0.4))
        elif held[0]:
            progress = self._ladder.climb(1, closeness(planar_distance(lower, self._goal), 0.3))
        else:
            progress = self._ladder.climb(0, closeness(reach(world, 0), 0.4))
        return TaskStatus(success=False, progress=progress)
