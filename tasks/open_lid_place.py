"""Open, place, close: a lid falls shut unless one arm holds it open while the other arm puts a block inside."""

from __future__ import annotations

import numpy as np

from embodichain.contracts import ARMS
from envs import GoalSpec, PandaKinematics, make_pose
from envs.world import DualArmWorld
from tasks.assets import block
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.containers import WALL, chest
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.frames import facing, heading, to_local, to_world
from tasks.judge import Ladder, closeness, holding, left_alone, planar_distance, reach, yaw_of
from tasks.language import arm_word
from tasks.motion import ToolTarget, nearest_turn, turn_along
from tasks.skills import PLACE, RELEASE_ABOVE, SETTLE_STEPS, Script, on_block, segments

CHEST_X, CHEST_Y, CHEST_YAW = (-0.16, 0.04), (0.03, 0.09), 0.55  # m, m, rad, seen from the arm that opens
ASKEW = 0.40  # rad, the middle of the chest's yaw: turned much further back, its open lid is out of the hand's reach
CHEST_DEPTH, CHEST_WIDTH = (0.059, 0.066), (0.068, 0.080)  # m, half extents
BLOCK_X, BLOCK_Y = (-0.34, -0.04), (-0.40, -0.17)  # m, likewise: from behind the lid, the block would not get past it
OPEN_ANGLE, HELD_ANGLE, CLOSED_ANGLE = 1.36, 0.9, 0.06  # rad: the expert's, what counts as open, and as closed
BLOCK_HALF, FLAT = (0.029, 0.033), 0.75  # m; share of the height
INSIDE_X = -0.009  # m, from the chest's middle to where the block goes: away from the lid
FLOOR = 2 * WALL  # m, height of the chest's floor
GRASP_NOISE, REACH_NOISE = 0.1, 0.2  # shares of the execution noise: all of it moves a hand by 2 cm, onto the knob
PART_OPEN = 0.95  # gripper command that lets a block go between the chest's walls


class OpenLidPlace:
    """The task `open_lid_place`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="open_lid_place",
            family="open_lid_place",
            arms="both",
            split="train",
            horizon=320,
            segments=("reach", "grasp", "open", *segments(PLACE, "block"), "close", "let go"),
            description="Hold a chest's lid open with one arm, put a block inside with the other one, close the lid.",
            instructions=(
                "[open|lift] the lid of the {chest} chest, [put|place] the {block} block inside and close it",
                "[put|place|drop] the {block} block [into|in] the {chest} chest while the {arm} arm holds its lid open",
                "hold the {chest} chest open with the {arm} arm and [put|stow] the {block} block inside",
            ),
            heldout_instructions=(
                "the {block} block belongs in the {chest} chest, [mind|hold] the lid",
                "[shut|lock] the {block} block away in the {chest} chest",
            ),
            objects=2,
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A chest before the arm that opens it, a block on the other one's side."""
        side = draws.sign("side")
        half = (draws.size("chest_half_depth", *CHEST_DEPTH), draws.size("chest_half_width", *CHEST_WIDTH))
        xy = (draws.position("chest_x", *CHEST_X), draws.position("chest_y", *CHEST_Y))
        yaw = ASKEW + draws.yaw("chest_yaw", CHEST_YAW)
        chest_word, block_word = draws.colours("colours", ("orange", "blue"))
        body = chest(draws, side, xy, yaw, half, chest_word)
        where = facing(side, draws.position("block_x", *BLOCK_X), draws.position("block_y", *BLOCK_Y))
        load = block(draws, "block", where, block_word, BLOCK_HALF, flat=FLAT)
        goal = GoalSpec(
            name="goal",
            pose=make_pose((*body.pose[:2], FLOOR + load.half_extents[2]), heading(side, yaw)),
            tolerance=(half[0] - FLOOR, half[1] - FLOOR, 0.01),
            marker="frame",
            marker_half_size=(half[0] + 0.01, half[1] + 0.01, 0.006),
            colour=colour_words()[block_word],
        )
        return TaskScene(
            spec=draws.scene((body, load), (goal,)),
            words={"chest": chest_word, "block": block_word, "arm": arm_word(side)},
        )

    def monitor(self, scene: TaskScene) -> OpenLidPlaceMonitor:
        """A fresh judge."""
        return OpenLidPlaceMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Both take hold; one swings the lid up and holds it, the other one places and leaves; the lid comes down."""
        body, load = world.object_pose()
        opener = ARMS.index(scene.words["arm"])
        placer = 1 - opener
        spec = scene.spec.objects[0]
        assert spec.joint is not None
        yaw, anchor, knob = yaw_of(body), np.asarray(spec.joint.anchor), np.asarray(spec.grasps[0])

        def lid(angle: float) -> ToolTarget:
            away, c, s = knob - anchor, np.cos(angle), np.sin(angle)
            turned = np.array([away[0] * c + away[2] * s, 0.0, away[2] * c - away[0] * s])
            x, y, z = to_world(body, anchor + turned)
            return ToolTarget(position=(float(x), float(y), float(z)), turn=turn_along(opener, yaw), tilt=angle)

        script = Script(world, kinematics)
        hold, place = script.arms[opener], script.arms[placer]
        swing = [lid(angle) for angle in np.linspace(0.0, OPEN_ANGLE, script.planner.limits.knots)]
        script.pick({opener: swing[0], placer: on_block(load)}, noise=GRASP_NOISE, reach_noise=REACH_NOISE)
        hold.sweep(swing, slow=1.6)
        place.go(on_block(load).raised(0.16), slow=1.2)
        script.end("open", noise=0.5)

        height = FLOOR + scene.spec.objects[1].half_extents[2] + 2 * RELEASE_ABOVE
        x, y, _ = to_world(body, (INSIDE_X, 0.0, 0.0))
        inside = ToolTarget(position=(float(x), float(y), height), turn=nearest_turn(yaw, np.pi) + np.pi / 2)
        script.place({placer: inside}, of="block", noise=GRASP_NOISE, opening=PART_OPEN)
        place.leave()
        script.end("retreat block")

        hold.sweep(swing[::-1], slow=1.8)
        hold.wait(SETTLE_STEPS)
        script.end("close")
        hold.let_go(swing[0], 0.12)
        script.end("let go")
        return script.plan()


class OpenLidPlaceMonitor:
    """Judges a block behind a closed lid: inside, lid down, nothing held, at rest."""

    def __init__(self, scene: TaskScene) -> None:
        self._goal = scene.spec.goals[0]
        self._ladder = Ladder(5)

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: the block lies on the chest's floor, the lid is down to 0.06 rad, nothing touched, all at rest."""
        load = world.object_pose()[1]
        angle = world.joint_position(0)
        touch = [world.finger_contacts(i) for i in (0, 1)]
        inside = bool((np.abs(to_local(self._goal.pose, load[:3])) < self._goal.tolerance).all())
        if inside and angle < CLOSED_ANGLE and left_alone(world, touch):
            return TaskStatus(success=True, progress=1.0)
        if inside and not touch[1].any():
            progress = self._ladder.climb(5 if angle < CLOSED_ANGLE else 4, closeness(angle, OPEN_ANGLE))
        elif holding(touch[1]).any() and angle > HELD_ANGLE:
            progress = self._ladder.climb(3, closeness(planar_distance(load, self._goal.pose), 0.4))
        elif holding(touch[0]).any():
            progress = self._ladder.climb(2 if angle > HELD_ANGLE else 1, angle / OPEN_ANGLE)
        else:
            progress = self._ladder.climb(0, closeness(reach(world, 0), 0.6))
        return TaskStatus(success=False, progress=progress)
