"""Stow: one arm opens the drawer, the other one puts its block inside, the first one closes the drawer."""

from __future__ import annotations

import numpy as np

from envs import GoalSpec, PandaKinematics, make_pose
from envs.world import DualArmWorld
from tasks.assets import block
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.domain import colour_words
from tasks.drawers import DEPTH, FLOOR, INNER, drawer
from tasks.draws import Draws
from tasks.judge import Ladder, closeness, holding, in_frame, left_alone, planar_distance, reach, yaw_of
from tasks.language import arm_word
from tasks.motion import ToolTarget
from tasks.skills import PICK, PLACE, RELEASE_ABOVE, SETTLE_STEPS, Script, arm_beside, on_block, segments

CABINET_X, CABINET_Y = (-0.04, 0.17), (-0.01, 0.05)  # m, towards the block's side
FOOT = (0.0, 0.05)  # m, height that the cabinet stands on
FACING, CABINET_YAW = 0.38, 0.60  # rad: how far the drawer looks towards the arm that opens it, and either side of that
BLOCK_X, BLOCK_SIDE, BLOCK_HALF = (-0.34, 0.06), (0.23, 0.40), (0.027, 0.031)  # m
HALF_WIDTH = (0.068, 0.078)  # m
PULL, CLOSED_GAP = 0.122, 0.006  # m: what the expert pulls, what counts as closed
MIDDLE = 0.016  # m, across the drawer: how far off its middle a block may lie
PUSH = 0.004  # m, beyond closed: the drawer meets its stop whatever the disturbance does to the hand
NOISE = 0.2  # share of the execution noise: all of it moves a hand by 2 cm, onto the post or the block
ENOUGH = 0.9  # of PULL, for a block to be let down
PART_OPEN = 0.9  # gripper command that lets a block go between the drawer's walls


class StowBlock:
    """The task `stow_block`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="stow_block",
            family="stow_block",
            arms="both",
            split="train",
            horizon=340,
            segments=(
                *segments(PICK, "handle"),
                *("pull", "leave"),
                *segments((*PICK, *PLACE), "block"),
                *segments(PICK, "to close"),
                *("close", "let go"),
            ),
            description="Open a drawer, put a block into its middle with the other arm, close the drawer.",
            instructions=(
                "[put|place|stow] the {block} block [into|in] the {drawer} drawer and close the drawer",
                "open the {drawer} drawer, [put|place] the {block} block inside, [close|shut] it again",
                "with the {arm} arm, [put|place] the {block} block into the {drawer} drawer, then shut it",
            ),
            heldout_instructions=("the {block} block [lives|belongs] in the {drawer} drawer, which shall be shut",),
            objects=2,
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A closed drawer at the back of the table, facing the arm that opens it; a block on the other arm's side."""
        width = draws.size("drawer_half_width", *HALF_WIDTH)
        side = draws.sign("block_side")
        x, y = draws.position("cabinet_x", *CABINET_X), side * draws.position("cabinet_y", *CABINET_Y)
        yaw = side * (FACING + draws.yaw("cabinet_yaw", CABINET_YAW))
        drawer_word, block_word = draws.colours("colours", ("orange", "blue"))
        foot = draws.position("cabinet_foot", *FOOT)
        body = drawer(draws, (x, y, foot), yaw, width, drawer_word)
        where = (draws.position("block_x", *BLOCK_X), side * draws.position("block_y", *BLOCK_SIDE))
        load = block(draws, "block", where, block_word, BLOCK_HALF)
        goal = GoalSpec(
            name="goal",
            pose=make_pose((x, y, body.pose[2] + FLOOR + load.half_extents[2]), yaw),
            tolerance=(INNER, MIDDLE, 0.01),
            marker="frame",
            marker_half_size=(DEPTH + 0.010, width + 0.016, 0.004),
            colour=colour_words()[block_word],
        )
        return TaskScene(
            spec=draws.scene((body, load), (goal,)),
            words={"drawer": drawer_word, "block": block_word, "arm": arm_word(side)},
        )

    def monitor(self, scene: TaskScene) -> StowBlockMonitor:
        """A fresh judge."""
        return StowBlockMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """The arm far from the block opens and closes, the other one stows in between; what is done is left out."""
        body, load = world.object_pose()
        stower = arm_beside(load)
        opener = 1 - stower
        gap = world.joint_position(0)
        hx, hy, hz = (float(v) for v in world.object_grasp()[0, opener])
        yaw = yaw_of(body)
        inwards = np.array([np.cos(yaw), np.sin(yaw)])
        # fingers on either side of the post: one between post and cabinet would come to stand on the roof's edge
        turn = 0.5 * np.pi + yaw
        handle = ToolTarget(position=(hx, hy, hz), turn=turn)
        shifts = (0.0, gap, gap - PULL, gap + PUSH)
        here, closed, opened, shut = (handle.moved(shift * inwards[0], shift * inwards[1], 0.0) for shift in shifts)
        script = Script(world, kinematics)
        pull, stow = script.arms[opener], script.arms[stower]
        inside, depth = _inside(scene, body, load), 0.0

        if gap < ENOUGH * PULL and not inside:
            script.pick({opener: here}, of="handle", noise=NOISE, reach_noise=NOISE)
            pull.slide(here, opened, slow=1.5)
            script.end("pull")
            pull.let_go(opened, 0.12)
            pull.leave()
            script.end("leave")
            here, depth = opened, gap - PULL

        if not inside:
            script.pick({stower: on_block(load)}, of="block", noise=NOISE, reach_noise=NOISE)
            height = float(body[2]) + FLOOR + scene.spec.objects[1].half_extents[2] + 2 * RELEASE_ABOVE
            x, y = (float(v) for v in body[:2] + depth * inwards)
            place = ToolTarget(position=(x, y, height), turn=turn)
            script.place({stower: place}, of="block", noise=NOISE, opening=PART_OPEN)
            stow.leave()

        script.pick({opener: here}, of="to close", noise=NOISE, reach_noise=NOISE)
        pull.slide(here, shut, slow=1.5)
        pull.wait(SETTLE_STEPS)
        script.end("close", noise=NOISE)
        pull.let_go(closed, 0.12)
        script.end("let go")
        return script.plan()


def _inside(scene: TaskScene, body: np.ndarray, load: np.ndarray) -> bool:
    """Whether the block at pose `load` lies in the middle of the drawer at pose `body`."""
    half = scene.spec.objects[1].half_extents[2]
    dx, dy, dz = (float(v) for v in in_frame(load, body))
    return abs(dx) < INNER and abs(dy) < MIDDLE and abs(dz - FLOOR - half) < 0.01


class StowBlockMonitor:
    """Judges a stowed block: inside the drawer, drawer closed, nothing held, at rest."""

    def __init__(self, scene: TaskScene) -> None:
        self._scene = scene
        self._ladder = Ladder(5)

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: the block lies in the middle of the drawer, which is shut to 6 mm; nothing touched, all at rest."""
        body, load = world.object_pose()
        gap = world.joint_position(0)
        touch = [world.finger_contacts(i) for i in (0, 1)]
        inside = _inside(self._scene, body, load)
        if inside and gap < CLOSED_GAP and left_alone(world, touch):
            return TaskStatus(success=True, progress=1.0)
        if inside and not touch[1].any():
            progress = self._ladder.climb(5 if gap < CLOSED_GAP else 4, closeness(gap, PULL))
        elif holding(touch[1]).any():
            progress = self._ladder.climb(3, closeness(planar_distance(load, body), 0.4))
        elif gap > 0.8 * PULL:
            progress = self._ladder.climb(2, closeness(reach(world, 1), 0.4))
        elif holding(touch[0]).any():
            progress = self._ladder.climb(1, gap / PULL)
        else:
            progress = self._ladder.climb(0, closeness(reach(world, 0), 0.6))
        return TaskStatus(success=False, progress=progress)
