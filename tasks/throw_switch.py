"""Throw the switch to its mark: a safety bar bars its way until one hand presses the bar's pad and holds it down."""

from __future__ import annotations

import numpy as np

from envs import GoalSpec, PandaKinematics, make_pose
from envs.world import DualArmWorld
from tasks.base import ExpertPlan, TaskInfo, TaskScene, TaskStatus
from tasks.devices import BAR_GAP, BAR_TRAVEL, HANDLE, PAD_HALF, PIVOT, safety_bar, switch
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.judge import Ladder, closeness, left_alone, yaw_of
from tasks.language import arm_word
from tasks.motion import ToolTarget, nearest_turn
from tasks.skills import CLOSED, SETTLE_STEPS, Script

X_RANGE, Y_RANGE, YAW_LIMIT = (-0.28, 0.28), (-0.13, 0.13), 0.80  # m, m, rad
STAND = (0.0, 0.08)  # m, height of the block under switch and bar
LEVER_HALF, REACH_HALF = (0.048, 0.060), (0.053, 0.065)  # m, half the lever's length, half the bar's reach
MARK, MARK_TOLERANCE = (0.56, 0.94), 0.040  # rad, of the switch; much less, and the bar would lie on it
BAR_DOWN, BAR_UP = 0.06, 0.24  # rad: of the bar at rest; where it bars no more
HAND_HALF = 0.0135  # m, from a closed hand's middle to its pushing face
COMPLIANCE = 0.00092  # m/N, how far an arm of nominal stiffness gives way across its reach; along it, hardly
EARLY, EARLY_AT, EARLY_BEND = 0.0056, 0.63, 0.066  # m, rad, m/rad^2: how early the hand meets the handle
TIP = 0.010  # m, from the tool point to the fingertips
APPROACH = 0.05  # m, behind the handle and above the pad, where hands come down
ARRIVE_STEPS = 8  # control steps, in which a slack controller comes to where it pushes
NOISE = 0.15  # share of the execution noise: a centimetre is a tenth of a radian of bar and switch
LAST = 0.15  # rad, of the throw; from there on, until the hand is off: no noise, the switch stays where it pushed it


class ThrowSwitch:
    """The task `throw_switch`."""

    @property
    def info(self) -> TaskInfo:
        """The catalogue entry."""
        return TaskInfo(
            name="throw_switch",
            family="throw_switch",
            arms="both",
            split="train",
            horizon=170,
            segments=("reach", "press", "throw", "back off", "let go"),
            description="Hold a safety bar down with one arm while the other throws the barred switch to its mark.",
            instructions=(
                "[press|hold down] the {bar} bar with one arm and [throw|flip|push] the {switch} switch with the other",
                "[throw|flip] the {switch} switch with the {arm} arm while the other one [holds|presses] the {bar} bar",
                "unlock the {switch} switch [with|by pressing] the {bar} bar and throw it {direction} to its mark",
                "[throw|flip|push] the barred {switch} switch {direction} to its mark, one arm [holds|presses] the bar",
            ),
            heldout_instructions=("the {switch} switch must lie at its mark, the {bar} safety bar [guards|locks] it",),
            objects=2,
        )

    def draw(self, draws: Draws) -> TaskScene:
        """A bar across the middle, a switch at its left or right end, to be thrown towards or away from the viewer."""
        where = (draws.position("x", *X_RANGE), draws.position("y", *Y_RANGE))
        yaw, side, way = draws.yaw("yaw", YAW_LIMIT), draws.sign("side"), draws.sign("direction")
        length, arm = 2.0 * draws.size("lever_half", *LEVER_HALF), 2.0 * draws.size("reach_half", *REACH_HALF)
        mark = draws.position("mark", *MARK)
        switch_word, bar_word = draws.colours("colours", ("red", "yellow"))
        c, s = np.cos(yaw), np.sin(yaw)
        dx, dy = -way * BAR_GAP, side * arm
        foot = (float(where[0] + c * dx - s * dy), float(where[1] + s * dx + c * dy))
        stand = draws.position("stand", *STAND)
        lever = switch(draws, (*foot, stand), yaw, length, side, way, switch_word)
        bar = safety_bar(draws, (*where, stand), yaw, arm, length, side, bar_word)
        over = way * length * np.sin(mark)
        goal = GoalSpec(
            name="goal",
            pose=make_pose((foot[0] + c * over, foot[1] + s * over, stand + PIVOT + length * np.cos(mark)), yaw),
            tolerance=(0.02, 0.02, 0.02),
            marker_half_size=(0.02, 0.02, 0.001),
            colour=colour_words()[switch_word],
        )
        words = {"switch": switch_word, "bar": bar_word, "arm": arm_word(side)}
        return TaskScene(
            spec=draws.scene((lever, bar), (goal,)),
            words={**words, "direction": "away" if way > 0 else "back"},
        )

    def monitor(self, scene: TaskScene) -> ThrowSwitchMonitor:
        """A fresh judge."""
        return ThrowSwitchMonitor(scene)

    def plan(self, scene: TaskScene, world: DualArmWorld, kinematics: PandaKinematics) -> ExpertPlan:
        """Hands closed: one above the pad, one behind the handle; press, throw, back off, let go."""
        lever, bar = scene.spec.objects
        yaw = yaw_of(world.object_pose()[0])
        turn = nearest_turn(yaw, np.pi)
        (back, out, top), arm = lever.grasps[0], abs(bar.grasps[0][1])
        way, side = -np.sign(back), np.sign(out)
        thrower = 0 if side > 0 else 1
        holder = 1 - thrower
        mark = mark_of(scene)
        assert lever.joint is not None
        force = lever.joint.friction / (top * np.cos(mark))
        early = EARLY - EARLY_BEND * (mark - EARLY_AT) ** 2  # measured, as COMPLIANCE is
        give = COMPLIANCE * np.cos(yaw) ** 2 * force / world.spec_scene.arm_control[thrower].stiffness
        foot, pivot = world.object_pose()[:, :3].astype(np.float64)

        def at(origin: np.ndarray, x: float, y: float, z: float) -> ToolTarget:
            c, s = np.cos(yaw), np.sin(yaw)
            px, py, pz = origin + np.array([c * x - s * y, s * x + c * y, z])
            return ToolTarget(position=(float(px), float(py), float(pz)), turn=turn)

        def pad(angle: float, above: float = 0.0) -> ToolTarget:
            return at(pivot, 0.0, -side * arm * np.cos(angle), TIP + PAD_HALF[2] - arm * np.sin(angle) + above)

        def behind(angle: float, gap: float = 0.0, up: float = 0.0) -> ToolTarget:
            edge = HANDLE[0] * np.cos(angle) + HANDLE[2] * np.sin(angle)  # the handle's lower edge meets the hand
            x = top * np.sin(angle) - edge - HAND_HALF - gap
            return at(foot, way * x, out, top * np.cos(angle) - 0.006 + up)

        script = Script(world, kinematics)
        hold, throw = script.arms[holder], script.arms[thrower]
        script.grip(CLOSED, SETTLE_STEPS)
        hold.go(pad(0.0, APPROACH), approach=0.10)
        throw.go(behind(0.0, APPROACH), approach=0.12)
        script.end("reach")
        hold.go(pad(BAR_TRAVEL), slow=1.5)
        hold.wait(SETTLE_STEPS)
        script.end("press", noise=NOISE)
        throw.go(behind(mark - LAST), slow=1.8)
        script.end("throw", noise=NOISE)
        throw.go(behind(mark, early - give), slow=1.8)
        throw.wait(ARRIVE_STEPS)
        script.end("throw", noise=0.0)
        throw.go(behind(mark, APPROACH, 0.08), approach=-0.08)
        script.end("back off", noise=0.0)
        hold.go(pad(0.0, APPROACH), slow=1.5)
        script.end("let go")
        return script.plan()


def mark_of(scene: TaskScene) -> float:
    """The angle that the switch shall have, rad: its tip is then at the goal."""
    tip, foot = (np.asarray(spec.pose[:3]) for spec in (scene.spec.goals[0], scene.spec.objects[0]))
    return float(np.arctan2(np.hypot(*(tip - foot)[:2]), (tip - foot)[2]))


class ThrowSwitchMonitor:
    """Judges the switch: at its mark, the bar down again, both left alone, at rest."""

    def __init__(self, scene: TaskScene) -> None:
        self._mark = mark_of(scene)
        self._ladder = Ladder(3)

    def update(self, world: DualArmWorld) -> TaskStatus:
        """Success: the switch within 0.04 rad of its mark, the bar back, no finger on either, all at rest."""
        angle, bar = world.joint_position(0), world.joint_position(1)
        touch = [world.finger_contacts(i) for i in (0, 1)]
        there = abs(angle - self._mark) < MARK_TOLERANCE
        if there and bar < BAR_DOWN and left_alone(world, touch):
            return TaskStatus(success=True, progress=1.0)
        if there:
            progress = self._ladder.climb(3, closeness(bar, BAR_TRAVEL))
        elif bar > BAR_UP:
            progress = self._ladder.climb(2, closeness(abs(angle - self._mark), self._mark))
        elif touch[1].any():
            progress = self._ladder.climb(1, bar / BAR_UP)
        else:
            grasps, tools = world.object_grasp(), world.tool_pose()[:, :3]
            away = np.linalg.norm(tools - grasps[1], axis=1)
            progress = self._ladder.climb(0, closeness(float(away.min()), 0.5))
        return TaskStatus(success=False, progress=progress)
