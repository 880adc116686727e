"""Smooth arm motions: Bezier tool paths, inverse kinematics along them, time by ruckig.

Takes tool poses in the world frame, hands on joint targets at the control rate. A motion is one curve
without via-point stops, in which the redundant joint follows the posture nearest to home; so what an
expert does next is (nearly) a function of where the tools and the objects are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from ruckig import InputParameter, Result, Ruckig, Trajectory
from scipy.interpolate import CubicSpline

from envs import ARM_DOF, CONTROL_HZ, HOME_QPOS, PandaKinematics
from tasks.base import PlanFailure

SAME_POSTURE = 0.8  # rad, of any joint, between a path's own start and where the arm is


@dataclass(frozen=True, kw_only=True)
class MotionLimits:
    """Joint speed (rad/s), acceleration (rad/s^2) and jerk (rad/s^3) of experts, and knots per path."""

    speed: float = 1.9
    acceleration: float = 7.0
    jerk: float = 80.0
    knots: int = 10


@dataclass(frozen=True, kw_only=True)
class Slack:
    """How far a grasp may be off the plain one and still hold.

    Attributes:
        along: m, to either side along the faces between the fingers.
        above: m, upwards.
        tilt: rad, to either side about the axis along which the fingers close.
        quarter: whether the object may be grasped across its other pair of faces too, a quarter turn away.
    """

    along: float = 0.0
    above: float = 0.0
    tilt: float = 0.0
    quarter: bool = False


@dataclass(frozen=True, kw_only=True)
class ToolTarget:
    """Where a tool goes: position in the world (m), `turn` about the vertical away from neutral (rad), `tilt` (rad).

    Without a tilt the tool points straight down; at turn 0 its frame is parallel to its base, and fingers close along
    x of the world. A tilt then turns it about the axis along which its fingers close, so that flat sides stay flat
    against them; positive: the hand leans away from its own base, the fingers point back towards it. `slack` is for
    grasps that may vary, see `Script.pick`.
    """

    position: tuple[float, float, float]
    turn: float = 0.0
    tilt: float = 0.0
    slack: Slack | None = None

    def moved(self, dx: float, dy: float, dz: float) -> ToolTarget:
        """The same, moved in the world, m."""
        x, y, z = self.position
        return replace(self, position=(x + float(dx), y + float(dy), z + dz))

    def raised(self, height: float) -> ToolTarget:
        """The same, `height` m higher."""
        return self.moved(0.0, 0.0, height)


def nearest_turn(yaw: float, symmetry: float) -> float:
    """`yaw` (rad) modulo `symmetry` (rad), the representative nearest to zero."""
    return float((yaw + 0.5 * symmetry) % symmetry - 0.5 * symmetry)


def between(start: ToolTarget, end: ToolTarget, count: int) -> list[ToolTarget]:
    """`count` targets along the straight line from `start` to `end`, both included; angles change evenly."""
    first, last = ((*t.position, t.turn, t.tilt) for t in (start, end))
    rows = np.linspace(first, last, count).tolist()
    return [ToolTarget(position=(x, y, z), turn=turn, tilt=tilt) for x, y, z, turn, tilt in rows]


def turn_along(arm: int, yaw: float) -> float:
    """The turn (rad) at which a positive tilt leans that arm's hand towards `yaw` in the world; fingers close across.

    Tilts reach furthest, about 120 degrees to either side, where this is near +pi/2: `yaw` near 0 for the left arm,
    near pi for the right one.
    """
    return nearest_turn(yaw + (0.5 * np.pi if arm == 0 else -0.5 * np.pi), 2.0 * np.pi)


def tool_axis(pose: np.ndarray) -> np.ndarray:
    """The direction f64[3] from fingertips to hand of a tool at `pose` f64[7]: up, if it points straight down."""
    w, x, y, z = pose[3:]
    return np.array([2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y)])


def compose(pose: np.ndarray, then: np.ndarray) -> np.ndarray:
    """The pose f64[7] of a frame that lies at `then` f64[7] in the frame at `pose` f64[7]."""
    (w, v), (w2, v2) = (pose[3], pose[4:]), (then[3], then[4:])
    swing = np.cross(v, then[:3])
    position = pose[:3] + then[:3] + 2.0 * (w * swing + np.cross(v, swing))
    return np.concatenate([position, [w * w2 - v @ v2], w * v2 + w2 * v + np.cross(v, v2)])


def _slerp(start: np.ndarray, end: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Quaternions wxyz between `start` and `end`, f64[N, 4], the short way round."""
    dot = float(start @ end)
    end, dot = (-end, -dot) if dot < 0.0 else (end, dot)
    angle = np.arccos(min(dot, 1.0))
    if angle < 1e-6:
        return np.repeat(end[None], len(fraction), axis=0)
    ratio = fraction[:, None]
    return (np.sin((1.0 - ratio) * angle) * start + np.sin(ratio * angle) * end) / np.sin(angle)


def _smooth(s: np.ndarray, end: float) -> np.ndarray:
    """0 -> 1 smoothly as s goes 0 -> end, then 1."""
    u = np.clip(s / end, 0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


class MotionPlanner:
    """Plans joint-space motions of either arm.

    Args:
        kinematics: of one arm.
        base_distance: of the bases from the middle of the table, m, as in `SceneSpec`.
        limits: speeds that no motion exceeds.
    """

    def __init__(self, kinematics: PandaKinematics, base_distance: float, limits: MotionLimits | None = None) -> None:
        self.kinematics = kinematics
        self.base_distance = base_distance
        self.limits = limits or MotionLimits()

    def in_base(self, arm: int, target: ToolTarget) -> np.ndarray:
        """A tool target as a pose in the frame of that arm's base, f64[7]."""
        x, y, z = target.position
        place = (self.base_distance - y, x, z) if arm == 0 else (self.base_distance + y, -x, z)
        turn, tilt = 0.5 * target.turn, 0.5 * target.tilt
        c, s, ct, st = np.cos(turn), np.sin(turn), np.cos(tilt), np.sin(tilt)
        return np.array([*place, c * ct, -s * st, c * st, s * ct])

    def tool_now(self, q: np.ndarray) -> np.ndarray:
        """Tool pose f64[7] in the base frame at joint angles `q` f64[7]."""
        return self.kinematics.forward(q)

    def arch(self, q_start: np.ndarray, end: np.ndarray, *, depart: float = 0.0, approach: float = 0.0) -> np.ndarray:
        """Joint knots f64[N, 7] along one cubic Bezier curve from where the tool is to `end` f64[7] (base frame).

        `depart` (m) raises the first inner control point above the start, `approach` (m) draws the second one back from
        the end along the tool's axis: the larger, the straighter that end and the higher the arch.
        Raises `PlanFailure("ik_unreachable")`.
        """
        start = self.kinematics.forward(q_start)
        up = np.array([0.0, 0.0, 1.0])
        control = np.stack([start[:3], start[:3] + depart * up, end[:3] + approach * tool_axis(end), end[:3]])
        s = np.linspace(0.0, 1.0, self.limits.knots)
        weights = np.stack([(1 - s) ** 3, 3 * (1 - s) ** 2 * s, 3 * (1 - s) * s**2, s**3], axis=1)
        poses = np.concatenate([weights @ control, _slerp(start[3:], end[3:], _smooth(s, 0.8))], axis=1)
        return self.follow(q_start, poses)

    def follow(self, q_start: np.ndarray, poses: np.ndarray) -> np.ndarray:
        """Joint knots f64[N, 7] through tool poses f64[N, 7] (base frame), the first of which `q_start` is at.

        Each knot is the posture nearest to home; what `q_start` differs from that fades out along the path.
        """
        knots = np.empty((len(poses), ARM_DOF))
        seed = self._branch(q_start, poses[0])
        for i, pose in enumerate(poses):
            solved = self.kinematics.inverse(pose, seed)
            if solved is None:
                raise PlanFailure("ik_unreachable", f"tool pose {np.round(pose, 3).tolist()}")
            knots[i] = seed = solved
        s = np.linspace(0.0, 1.0, len(poses))
        return knots + (1.0 - _smooth(s, 0.8))[:, None] * (q_start - knots[0])

    def _branch(self, q_start: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """Where to seed a path from `pose` f64[7]: home, unless that leads to another arm posture than `q_start`'s.

        Tilted tools have several postures, each the nearest to home in its own neighbourhood.
        """
        home = np.asarray(HOME_QPOS, dtype=np.float64)
        solved = self.kinematics.inverse(pose, home)
        return home if solved is not None and float(np.abs(solved - q_start).max()) < SAME_POSTURE else q_start

    def retime(self, knots: np.ndarray, *, slow: float = 1.0) -> np.ndarray:
        """Joint targets f64[T, D] at the control rate along `knots` f64[N, D], from rest to rest.

        The path's length is run through with bounded jerk (ruckig), fast enough that the quickest joint
        just meets the speed and acceleration limits. The first row is one control step after the start,
        the last is the end. `slow` > 1 takes that much longer. Raises `PlanFailure("timing")`.
        """
        lengths = np.linalg.norm(np.diff(knots, axis=0), axis=1)
        if lengths.sum() < 1e-6:
            return knots[-1:].copy()
        arc = np.concatenate([[0.0], np.cumsum(np.maximum(lengths, 1e-6))])
        path = CubicSpline(arc, knots)
        fine = np.linspace(0.0, arc[-1], 3 * len(knots))
        slope, bend = np.abs(path(fine, 1)).max(), max(np.abs(path(fine, 2)).max(), 1e-9)
        limits = self.limits
        speed = min(limits.speed / slope, np.sqrt(limits.acceleration / bend))
        inputs = InputParameter(1)
        inputs.current_position, inputs.target_position = [0.0], [float(arc[-1])]
        inputs.max_velocity = [float(speed)]
        inputs.max_acceleration = [float(limits.acceleration / slope)]
        inputs.max_jerk = [float(limits.jerk / slope)]
        profile = Trajectory(1)
        if Ruckig(1).calculate(inputs, profile) not in (Result.Working, Result.Finished):
            raise PlanFailure("timing", "no timing meets the joint limits")
        steps = max(1, int(np.ceil(profile.duration * slow * CONTROL_HZ - 1e-9)))
        times = np.linspace(0.0, profile.duration, steps + 1)[1:]
        along = np.array([profile.at_time(float(t))[0][0] for t in times])
        along[-1] = arc[-1]
        return np.asarray(path(along))
