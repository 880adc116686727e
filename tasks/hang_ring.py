"""Hang: one arm steadies a stand that would tip over, the other one takes a ring up and hangs it on the stand's peg."""

from __future__ import annotations

import numpy as np

from embodichain.contracts import ARMS
from envs import GoalSpec, PandaKinematics, make_pose
from envs.world import DualArmWorld
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.frames import to_world
from tasks.hooks import PEG, hole_half_width, peg_middle, ring, stand, threaded
from tasks.judge import MAX_TILT, Ladder, all_at_rest, closeness, holding, reach, tilt, yaw_of
from tasks.language import arm_word
from tasks.motion import ToolTarget, turn_along
from tasks.skills import PICK, RELEASE_ABOVE, SETTLE_STEPS, Script

RING_X, RING_Y, RING_YAW = (-0.24, -0.02), (0.14, 0.33), 0.80  # m, m, rad
STAND_X, STAND_Y, STAND_YAW = (0.05, 0.14), (0.01, 0.06), 0.26  # m, m, rad
ASKEW = -0.22  # rad, the middle of the stand's yaw: turned much further, no upright ring reaches the peg
HOLE, PEG_HEIGHT = (0.015, 0.020), (0.175, 0.260)  # m, half width of the ring's hole, height of the peg
CLEAR = 0.065  # m, before its place on the peg, where the ring is held up to it
HOLD_LEAN = -0.20  # rad, by which the hand on the post leans away from the ring
SWING_STEPS = 15
HANGING = 0.10  # m, above which the middle of the hole is off the table


class HangRing:
    """The task `hang_ring`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="hang_ring",
            family="hang_ring",
            arms="both",
            split="train",
            horizon=260,
            segments=(*PICK, "raise", "thread", "hang", "let go"),
            description="Steady a tippy stand with one arm and hang a ring on its peg with the other one.",
            instructions=(
                "[hang|put] the {ring} ring on the {stand} stand's peg while the other arm holds the stand",
                "with the {arm} arm, [hang|put] the {ring} ring on the {stand} stand, which the other one steadies",
                "[steady|hold] the {stand} stand and [hang|put] the {ring} ring on its peg",
                "[take|pick up] the {ring} ring with the {arm} arm and hang it on the {stand} stand",
            ),
            heldout_instructions=(
                "the {ring} ring [belongs|shall hang] on the {stand} stand's peg, mind that it tips",
            ),
            objects=2,
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A ring on the side of the arm that hangs it up; a stand in the middle, its peg towards that hand."""
        side = draws.sign("side")
        hole, height = draws.size("hole_half_width", *HOLE), draws.size("peg_height", *PEG_HEIGHT)
        ring_word, stand_word = draws.colours("colours", ("red", "white"))
        ring_xy = (draws.position("ring_x", *RING_X), draws.position("ring_y", *RING_Y))
        loop = ring(draws, side, ring_xy, draws.yaw("ring_yaw", RING_YAW), hole, ring_word)
        stand_xy = (draws.position("stand_x", *STAND_X), draws.position("stand_y", *STAND_Y))
        post = stand(draws, side, stand_xy, ASKEW + draws.yaw("stand_yaw", STAND_YAW), height, stand_word)
        place = to_world(post.pose, peg_middle(post))
        goal = GoalSpec(
            name="goal",
            pose=make_pose(place.tolist(), yaw_of(post.pose)),
            tolerance=(0.03, 0.01, 0.01),
            marker="frame",
            marker_half_size=(0.02, 0.02, 0.004),
            colour=colour_words()[ring_word],
        )
        return TaskScene(
            spec=draws.scene((loop, post), (goal,)),
            words={"ring": ring_word, "stand": stand_word, "arm": arm_word(side)},
        )

    def monitor(self, scene: TaskScene) -> HangRingMonitor:
        """A fresh judge."""
        return HangRingMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Both take hold; the ring rises and turns upright, goes over the peg, down onto it; the hand draws back."""
        loop, post = world.object_pose()
        hanger = ARMS.index(scene.words["arm"])
        holder = 1 - hanger
        spec, stand_spec = scene.spec.objects
        tab, peg, yaw = spec.grasps[0], np.asarray(peg_middle(stand_spec)), yaw_of(post)

        def at(point: np.ndarray, turn: float, tilt: float) -> ToolTarget:
            x, y, z = (float(v) for v in point)
            return ToolTarget(position=(x, y, z), turn=turn, tilt=tilt)

        def upright(x: float, z: float) -> ToolTarget:
            """The tool that holds the ring upright, the middle of its hole (x, z) m from the peg's middle."""
            return at(
                to_world(post, peg + np.array([x - tab[2], 0.0, z + tab[0]])), turn_along(hanger, yaw), -0.5 * np.pi
            )

        script = Script(world, kinematics)
        hang = script.arms[hanger]
        take = at(to_world(loop, tab), turn_along(hanger, yaw_of(loop)), 0.0)
        steady = at(to_world(post, stand_spec.grasps[0]), turn_along(holder, yaw + np.pi), HOLD_LEAN)
        script.pick({hanger: take, holder: steady}, noise=0.1, settle=5)
        before, over = upright(-CLEAR, 0.0), upright(0.0, 0.0)
        hang.go(before, depart=0.12, slow=1.1)
        script.end("raise", noise=0.5)
        hang.wait(2 * SETTLE_STEPS)
        hang.slide(before, over, slow=1.3)
        script.end("thread", noise=0.1)
        down = upright(0.0, PEG[2] - hole_half_width(spec) + RELEASE_ABOVE / 3)
        hang.slide(over, down, slow=1.3)
        hang.wait(SETTLE_STEPS)
        script.end("hang", noise=0.0)
        hang.back_off(down, 0.12)
        hang.wait(SWING_STEPS)
        script.end("let go", noise=0.1)
        return script.plan()


class HangRingMonitor:
    """Judges a ring on a peg: through its hole, off the table, let go of, the stand held upright, all at rest."""

    def __init__(self, scene: TaskScene) -> None:
        spec, stand_spec = scene.spec.objects
        self._hole, self._peg = hole_half_width(spec), peg_middle(stand_spec)
        self._ladder = Ladder(4)

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: the ring hangs on the peg of the upright, held stand, no finger touches it, both at rest."""
        loop, post = world.object_pose()
        touch, steadied = world.finger_contacts(0), bool(holding(world.finger_contacts(1)).any())
        on_peg = threaded(loop, self._hole, post, self._peg) and tilt(post) < MAX_TILT
        if on_peg and steadied and not touch.any() and all_at_rest(world) and loop[2] > HANGING:
            return TaskStatus(success=True, progress=1.0)
        away = float(np.linalg.norm(loop[:3] - to_world(post, self._peg)))
        if holding(touch).any() and steadied:
            progress = self._ladder.climb(3 if on_peg else 2, closeness(away, 0.4))
        elif holding(touch).any() or steadied:
            progress = self._ladder.climb(1)
        else:
            nearest = max(reach(world, 0), float(np.linalg.norm(world.tool_pose()[:, :3] - post[:3], axis=1).min()))
            progress = self._ladder.climb(0, closeness(nearest, 0.6))
        return TaskStatus(success=False, progress=progress)
