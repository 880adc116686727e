"""Skills of either arm, written side by side into one expert plan.

A `Script` has one pen per arm, which appends motions to that arm's track alone. `end(segment)` closes a segment:
the arm that is ready first waits for the other, and every step since the last `end` gets the segment's name. So two
arms act at once by being written into the same segment, and one after the other by being written into different ones.
`pick` and `place` are made of such segments and take a target for either arm or for both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embodichain.contracts import ACTION_DIM, ARMS, UnifiedAction
from envs import ARM_DOF, HOME_QPOS, GoalSpec, PandaKinematics
from envs.world import DualArmWorld
from tasks.base import ExpertPlan, PlanFailure
from tasks.grasps import choose_hold
from tasks.judge import face_yaw
from tasks.motion import MotionPlanner, Slack, ToolTarget, between, compose, nearest_turn, tool_axis

OPEN, CLOSED = 1.0, 0.0
GRASP_STEPS, RELEASE_STEPS, SETTLE_STEPS = 5, 4, 2  # control steps
HEAVY_GRASP_STEPS = 6
DRAWN_NOISE, DRAWN_SETTLE = 0.1, 4  # where a hand closes on a drawn grasp: share of the noise, control steps
SHARED = 0.22  # m, from the middle line: where either arm may come to work
CLEARANCE = 0.10  # m, how far a tool rises after letting go
RELEASE_ABOVE = 0.003  # m, above contact, where a held object is let go
BLOCK_SLACK = Slack(along=0.006, above=0.006, tilt=0.43, quarter=True)  # m, m, rad: what every block allows
PICK, PLACE = ("reach", "grasp"), ("carry", "release", "retreat")  # the segments of `Script.pick` and `Script.place`


def segments(skills: Sequence[str], of: str) -> tuple[str, ...]:
    """The segment names of skills on a named object: `reach block`, `grasp block`."""
    return tuple(f"{skill} {of}" for skill in skills)


def arm_beside(pose: np.ndarray) -> int:
    """The arm on whose side of the table something lies: 0 left, 1 right."""
    return 0 if pose[1] > 0.0 else 1


def on_block(pose: np.ndarray) -> ToolTarget:
    """Where a tool grasps a cube at `pose` f32[7]: its centre, across its nearest pair of faces."""
    x, y, z = (float(v) for v in pose[:3])
    return ToolTarget(position=(x, y, z), turn=nearest_turn(face_yaw(pose), np.pi / 2), slack=BLOCK_SLACK)


def grips_on(world: DualArmWorld, index: int, turn: float) -> list[ToolTarget]:
    """Where both tools grasp object `index`: at the grasp point that it offers to either arm, turned alike."""
    return [ToolTarget(position=tuple(point.tolist()), turn=turn) for point in world.object_grasp()[index]]


def set_down(goal: GoalSpec) -> ToolTarget:
    """Where a tool lets go of what it holds by its centre, a little above a goal."""
    x, y, z = goal.pose[:3]
    return ToolTarget(position=(x, y, z + RELEASE_ABOVE))


class Pen:
    """One arm's track: joint targets f64[7] and gripper commands, step by step.

    Attributes:
        hold: f64[7], where the tool is in the frame of the tool that had grasped plainly; None: there. Targets are
            those of the plain one, so that what is held ends where the caller means it to.
    """

    def __init__(self, arm: int, q_start: np.ndarray, home: np.ndarray, planner: MotionPlanner) -> None:
        self.arm, self.planner = arm, planner
        self.home, self.q = home, np.array(q_start, dtype=np.float64)
        self.command = OPEN
        self.hold: np.ndarray | None = None
        self.joints: list[np.ndarray] = []
        self.commands: list[float] = []

    def follow(self, track: np.ndarray) -> None:
        """Play joint targets f64[T, 7]."""
        self.joints.extend(track)
        self.commands.extend([self.command] * len(track))
        self.q = track[-1]

    def wait(self, steps: int) -> None:
        """Hold still for `steps` control steps."""
        self.joints.extend([self.q] * steps)
        self.commands.extend([self.command] * steps)

    def go(self, target: ToolTarget, *, depart: float = 0.0, approach: float = 0.0, slow: float = 1.0) -> None:
        """Along one arch to `target`; see `MotionPlanner.arch` and `retime`. Raises `PlanFailure`."""
        knots = self.planner.arch(self.q, self.tool_at(target), depart=depart, approach=approach)
        self.follow(self.planner.retime(knots, slow=slow))

    def tool_at(self, target: ToolTarget) -> np.ndarray:
        """Where the tool is when what it holds is at `target`: a pose f64[7] in the base's frame."""
        pose = self.planner.in_base(self.arm, target)
        return pose if self.hold is None else compose(pose, self.hold)

    def sweep(self, targets: Sequence[ToolTarget], *, slow: float = 1.0) -> None:
        """Through `targets`, the first of which is where the tool is. Raises `PlanFailure`."""
        poses = np.stack([self.tool_at(target) for target in targets])
        self.follow(self.planner.retime(self.planner.follow(self.q, poses), slow=slow))

    def slide(self, start: ToolTarget, end: ToolTarget, *, slow: float = 1.0) -> None:
        """Straight from `start`, where the tool is, to `end`. Raises `PlanFailure`."""
        self.sweep(between(start, end, self.planner.limits.knots), slow=slow)

    def grip(self, command: float, steps: int) -> None:
        """Command the gripper (1 = open, 0 = squeeze) and wait for it."""
        self.command = command
        self.wait(steps)

    def let_go(self, here: ToolTarget, rise: float) -> None:
        """Open, and rise by `rise` m from `here`, where the tool is, fingers clear before it turns away."""
        self.grip(OPEN, RELEASE_STEPS)
        self.go(here.raised(rise), depart=0.04, approach=-0.03)
        self.hold = None

    def back_off(self, here: ToolTarget, distance: float) -> None:
        """Open, and draw the hand back by `distance` m along its own axis from `here`, where the tool is."""
        self.grip(OPEN, RELEASE_STEPS)
        pose = self.tool_at(here)
        pose[:3] += distance * tool_axis(pose)
        self.follow(self.planner.retime(self.planner.arch(self.q, pose)))
        self.hold = None

    def leave(self) -> None:
        """Straight in joint space to where the arm stood at the reset, out of the other one's way."""
        self.follow(self.planner.retime(np.linspace(self.q, self.home, self.planner.limits.knots)))

    def keep_clear(self) -> None:
        """For an arm that began where the other one may come to work: whenever it has nothing to do, it goes home."""
        if self.planner.tool_now(self.home)[0] > self.planner.base_distance - SHARED:
            self.home = np.asarray(HOME_QPOS, dtype=np.float64)

    def make_way(self) -> None:
        """Leave, unless the arm is where it began and that is clear."""
        if not np.array_equal(self.q, self.home):
            self.leave()


class Script:
    """An expert plan in the making, from where the arms of `world` are now.

    Attributes:
        arms: the left and the right pen.
    """

    def __init__(self, world: DualArmWorld, kinematics: PandaKinematics) -> None:
        self._kinematics = kinematics
        self.planner = MotionPlanner(kinematics, world.spec_scene.base_distance)
        self._draws = iter(world.spec_scene.grasp_draws)
        self._places = [set_down(goal) for goal in world.spec_scene.goals]
        start = world.arm_qpos()[:, :ARM_DOF]
        home = np.asarray(world.spec_scene.arm_qpos, dtype=np.float32).astype(np.float64)
        self.arms = tuple(Pen(arm, start[arm], home[arm], self.planner) for arm in range(len(ARMS)))
        for pen in self.arms if world.spec_scene.grasp_draws else ():
            pen.keep_clear()
        self._segments: list[int] = []
        self._noise: list[float] = []
        self._names: list[str] = []

    def together(
        self, left: ToolTarget, right: ToolTarget, *, depart: float = 0.0, approach: float = 0.0, slow: float = 1.0
    ) -> None:
        """Both arms at once and in step, along one arch each. Raises `PlanFailure`."""
        targets = (left, right)
        knots = [
            self.planner.arch(pen.q, pen.tool_at(target), depart=depart, approach=approach)
            for pen, target in zip(self.arms, targets, strict=True)
        ]
        self.in_step(knots, slow)

    def pick(
        self,
        targets: dict[int, ToolTarget],
        of: str = "",
        *,
        noise: float = 1.0,
        settle: int = SETTLE_STEPS,
        reach_noise: float = 1.0,
    ) -> None:
        """Arms reach down to their targets, settle, close: the segments `reach` and `grasp` (of what, if said).

        Where a target has slack, the scene's draws say which of the grasps within reach an arm takes; noise then is
        little, since it would take an arm from the one to another.
        `noise` is for what must be held by its middle: the share from the moment of settling on, see `end`;
        `reach_noise`, before that, for what open fingers have little room around and would knock over.
        """
        for arm, target in targets.items():
            draw = next(self._draws, ()) if target.slack else ()
            hold = choose_hold(self.planner, arm, target, self._places, draw) if draw else None
            self.arms[arm].hold = hold
            if hold is not None:
                noise, settle = min(noise, DRAWN_NOISE), max(settle, DRAWN_SETTLE)
            self.arms[arm].go(target, approach=0.20)
        self.end(f"reach {of}".strip(), noise=reach_noise)
        for arm in targets:
            self.arms[arm].wait(settle)
        self.end(f"reach {of}".strip(), noise=noise)
        for arm in targets:
            self.arms[arm].grip(CLOSED, GRASP_STEPS)
        self.end(f"grasp {of}".strip(), noise=noise)

    def place(
        self,
        targets: dict[int, ToolTarget],
        of: str = "",
        *,
        slow: float = 1.0,
        depart: float = 0.14,
        noise: float = 1.0,
        opening: float = OPEN,
    ) -> None:
        """Arms carry what they hold to their targets, let go, rise: `carry`, `release` and `retreat`.

        `noise` is for what centimetres would spoil, see `end`; `opening` for where there is no room to open wide.
        """
        for arm, target in targets.items():
            self.arms[arm].go(target, depart=depart, approach=0.14, slow=slow)
            self.arms[arm].wait(SETTLE_STEPS)
        self.end(f"carry {of}".strip(), noise=noise)
        for arm in targets:
            self.arms[arm].grip(opening, RELEASE_STEPS)
        self.end(f"release {of}".strip(), noise=noise)
        for arm, target in targets.items():
            self.arms[arm].go(target.raised(CLEARANCE), depart=0.05, approach=-0.03)
            self.arms[arm].command, self.arms[arm].hold = OPEN, None
        self.end(f"retreat {of}".strip())

    def turn_together(
        self, centre: np.ndarray, grips: Sequence[ToolTarget], angle: float, *, slow: float = 1.5
    ) -> None:
        """Both arms carry their grips about the vertical through `centre` f64[3] by `angle` rad; hands turn along."""
        steps = np.linspace(0.0, angle, self.planner.limits.knots)
        knots = []
        for pen, grip in zip(self.arms, grips, strict=True):
            spoke = np.asarray(grip.position) - centre
            poses = [
                pen.tool_at(
                    ToolTarget(
                        position=(
                            float(centre[0] + np.cos(a) * spoke[0] - np.sin(a) * spoke[1]),
                            float(centre[1] + np.sin(a) * spoke[0] + np.cos(a) * spoke[1]),
                            grip.position[2],
                        ),
                        turn=grip.turn + float(a),
                    )
                )
                for a in steps
            ]
            knots.append(self.planner.follow(pen.q, np.stack(poses)))
        self.in_step(knots, slow)

    def in_step(self, knots: Sequence[np.ndarray], slow: float) -> None:
        """Both arms along their knots f64[N, 7], on one clock."""
        track = self.planner.retime(np.concatenate(knots, axis=1), slow=slow)
        for pen, part in zip(self.arms, np.split(track, len(ARMS), axis=1), strict=True):
            pen.follow(part)

    def grasp_together(self, grips: Sequence[ToolTarget], of: str = "") -> None:
        """Both arms take hold of one heavy object: `reach` and `grasp`."""
        for pen in self.arms:
            pen.hold = None
        self.together(*grips, approach=0.20)
        self.wait(SETTLE_STEPS)
        self.end(f"reach {of}".strip())
        self.grip(CLOSED, HEAVY_GRASP_STEPS)
        self.end(f"grasp {of}".strip())

    def lift_together(
        self,
        grips: Sequence[ToolTarget],
        rise: float,
        of: str = "",
        *,
        aside: tuple[float, float] = (0.0, 0.0),
        slow: float = 1.0,
    ) -> None:
        """Both arms take hold of one heavy object and carry it up by `rise`, and by `aside` (x, y), m, in step.

        The segments `reach`, `grasp` and `lift`.
        """
        self.grasp_together(grips, of)
        self.together(*(grip.moved(*aside, rise) for grip in grips), slow=slow)
        self.wait(SETTLE_STEPS)
        self.end(f"lift {of}".strip())

    def place_together(
        self, targets: Sequence[ToolTarget], of: str = "", *, arc: float, slow: float = 1.0, noise: float = 1.0
    ) -> None:
        """Both arms carry one object in step, set it down, let go and rise: `carry`, `release` and `retreat`.

        `arc` (m) bends the way upwards, as `depart` and `approach` of `together` do; `noise` as in `end`.
        """
        self.together(*targets, depart=arc, approach=arc, slow=slow)
        self.wait(SETTLE_STEPS)
        self.end(f"carry {of}".strip(), noise=noise)
        self.grip(OPEN, RELEASE_STEPS)
        self.end(f"release {of}".strip())
        self.together(*(target.raised(CLEARANCE) for target in targets), depart=0.05, approach=-0.03)
        self.end(f"retreat {of}".strip())

    def wait(self, steps: int) -> None:
        """Both arms hold still."""
        for pen in self.arms:
            pen.wait(steps)

    def grip(self, command: float, steps: int) -> None:
        """Both grippers at once."""
        for pen in self.arms:
            pen.grip(command, steps)

    def end(self, segment: str, *, noise: float = 1.0) -> None:
        """Close a segment: both arms have reached this point before anything that follows.

        `noise` in [0, 1] is the share of the domain's execution noise that the segment bears.
        """
        if not self._segments:
            for pen in self.arms:
                if not pen.joints:
                    pen.make_way()
        steps = max(len(pen.joints) for pen in self.arms)
        for pen in self.arms:
            pen.wait(steps - len(pen.joints))
        if segment not in self._names:
            self._names.append(segment)
        self._noise.extend([noise] * (steps - len(self._segments)))
        self._segments.extend([self._names.index(segment)] * (steps - len(self._segments)))

    def plan(self) -> ExpertPlan:
        """The finished plan; its pose half is the kinematics of its joint half. Raises `PlanFailure` if it is empty."""
        steps = len(self._segments)
        if not steps:
            raise PlanFailure("nothing_to_do")
        action = np.zeros((steps, ACTION_DIM), dtype=np.float32)
        for pen in self.arms:
            assert len(pen.joints) == steps, "a segment was left open: call end()"
            targets = np.asarray(pen.joints).astype(np.float32)
            action[:, UnifiedAction.joints(pen.arm)] = targets
            action[:, UnifiedAction.gripper(pen.arm)] = np.asarray(pen.commands, dtype=np.float32)[:, None]
            fresh = np.ones(steps, dtype=bool)
            fresh[1:] = np.any(targets[1:] != targets[:-1], axis=1)
            poses = self._kinematics.forward_many(targets[fresh])
            action[:, UnifiedAction.eef(pen.arm)] = poses[np.cumsum(fresh) - 1]
        return ExpertPlan(
            action=action,
            segment_id=np.asarray(self._segments, dtype=np.int16),
            segment_names=tuple(self._names),
            disturbance=np.asarray(self._noise, dtype=np.float32),
        )
