"""Load and lift: one arm puts a block on the tray, then both lift the tray level without losing it."""

from __future__ import annotations

import numpy as np

from envs import PandaKinematics
from envs.world import DualArmWorld
from tasks.assets import BASE_HALF_HEIGHT, GRIP_HALF, block, raised_tray, tray
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.draws import Draws
from tasks.judge import Ladder, at_rest, closeness, holding, lies_on, lifted_level, planar_distance, reach, yaw_of
from tasks.language import arm_word
from tasks.motion import ToolTarget, nearest_turn
from tasks.skills import PICK, PLACE, RELEASE_ABOVE, Script, arm_beside, grips_on, on_block, segments

GOAL_TOLERANCE = 0.02  # m, distance of the tray's centre from its goal
MIN_LIFT = 0.08  # m above the table height
TRAY_X, TRAY_Y, TRAY_YAW = (-0.08, 0.08), (-0.05, 0.05), 0.40  # m, m, rad
BLOCK_X, BLOCK_SIDE = (0.18, 0.24), (0.10, 0.30)  # m: before or behind the tray, as the tray lies; from the middle line
LIFT_RANGE, ASIDE = (0.10, 0.20), 0.06  # m, up and to either side, of the goal
SLAB_TOP = 2.0 * BASE_HALF_HEIGHT - GRIP_HALF[2]  # m, above the tray's centre
LOAD_HEIGHT_SLACK = 0.012  # m


class LoadTray:
    """The task `load_tray`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="load_tray",
            family="load_tray",
            arms="both",
            split="train",
            horizon=190,
            segments=(
                *segments((*PICK, *PLACE), "block"),
                *segments((*PICK, "lift"), "tray"),
            ),
            description="One arm loads the tray with a block, then both lift it level.",
            instructions=(
                "[put|place|set] the {block} block on the {tray} tray and [lift|raise] the tray level with both arms",
                "load the {tray} tray with the {block} block [and|, then] [lift|raise] it with both hands",
                "with the {arm} arm [put|place] the {block} block on the {tray} tray, then lift it to the {goal} posts",
            ),
            heldout_instructions=(
                "the {tray} tray shall [carry|bear] the {block} block up to the {goal} posts, held by both arms",
            ),
            objects=2,
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A tray across the middle, a block before or behind it on a random side, a target above and aside."""
        length, width = draws.size("tray_half_length", 0.150, 0.180), draws.size("tray_half_width", 0.060, 0.080)
        xy = (draws.position("tray_x", *TRAY_X), draws.position("tray_y", *TRAY_Y))
        yaw = draws.yaw("tray_yaw", TRAY_YAW)
        lift = draws.position("lift", *LIFT_RANGE)
        tray_word, block_word, goal_word = draws.colours("colours", ("orange", "red", "cyan"))
        front, side = draws.sign("block_front"), draws.sign("block_side")
        ahead, beside = front * draws.position("block_x", *BLOCK_X), side * draws.position("block_y", *BLOCK_SIDE)
        where = (xy[0] + ahead - beside * np.sin(yaw), beside)
        aside = (xy[0] + draws.position("aside_x", -ASIDE, ASIDE), xy[1] + draws.position("aside_y", -ASIDE, ASIDE))
        goal = raised_tray(aside, yaw, lift, length, width, GOAL_TOLERANCE, goal_word)
        objects = (tray(draws, xy, yaw, length, width, tray_word), block(draws, "block", where, block_word))
        return TaskScene(
            spec=draws.scene(objects, (goal,)),
            words={"tray": tray_word, "block": block_word, "goal": goal_word, "arm": arm_word(where[1])},
        )

    def monitor(self, scene: TaskScene) -> LoadTrayMonitor:
        """A fresh judge."""
        return LoadTrayMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """The arm on the block's side loads a tray without a block; then both reach for its grips and lift in step."""
        body, load = world.object_pose()
        arm = arm_beside(load)
        script = Script(world, kinematics)
        height = float(body[2]) + SLAB_TOP + scene.spec.objects[1].half_extents[2]
        if not lies_on(load, body, height, scene.spec.objects[0].half_extents[0] / 2):
            script.pick({arm: on_block(load)}, of="block")
            place = ToolTarget(position=(float(body[0]), float(body[1]), height + RELEASE_ABOVE))
            script.place({arm: place}, of="block")
        grips = grips_on(world, 0, nearest_turn(yaw_of(body), np.pi))
        dx, dy, dz = (float(v) for v in np.asarray(scene.spec.goals[0].pose[:3]) - body[:3])
        script.lift_together(grips, dz + 0.004, of="tray", aside=(dx, dy), slow=1.3)
        return script.plan()


class LoadTrayMonitor:
    """Judges a loaded lift: block on the tray, tray at its target, held by both, at rest."""

    def __init__(self, scene: TaskScene) -> None:
        self._goal = np.asarray(scene.spec.goals[0].pose)
        self._start = scene.spec.objects[0].pose[2]
        self._half = scene.spec.objects[1].half_extents[2]
        self._width = scene.spec.objects[0].half_extents[0]
        self._ladder = Ladder(5)

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: lifted level by both arms to the goal with the block lying on the tray, untouched, at rest."""
        body, load = world.object_pose()
        touch = world.finger_contacts(1)
        above = float(load[2] - body[2]) - SLAB_TOP - self._half
        loaded = planar_distance(load, body) < self._width and abs(above) < LOAD_HEIGHT_SLACK and not touch.any()
        held = holding(world.finger_contacts(0))
        level = lifted_level(body, held)
        raised = float(body[2]) - self._start
        off = float(np.linalg.norm(body[:3] - self._goal[:3]))
        if loaded and level and raised >= MIN_LIFT and off < GOAL_TOLERANCE:
            if at_rest(world, 0) and at_rest(world, 1):
                return TaskStatus(success=True, progress=1.0)
            progress = self._ladder.climb(5)
        elif loaded and level:
            progress = self._ladder.climb(4, raised / float(self._goal[2] - self._start))
        elif loaded:
            progress = self._ladder.climb(3 if held.any() else 2)
        elif holding(touch).any():
            progress = self._ladder.climb(1, closeness(planar_distance(load, body), 0.3))
        else:
            progress = self._ladder.climb(0, closeness(reach(world, 1), 0.4))
        return TaskStatus(success=False, progress=progress)
