"""Which of the grasps that an arm can reach it takes: four numbers in [0, 1) -> where the tool holds an object.

Numbers that stand for a grasp within reach give that grasp, so that even numbers stay even over scenes; the others are
mapped evenly onto the reachable tilts instead of being thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs import HOME_QPOS, PandaKinematics
from tasks.motion import MotionPlanner, Slack, ToolTarget, compose, tool_axis

FINGERTIP = (0.0088, 0.0095)  # m, half width of a fingertip, and how far it reaches beyond the tool point
TABLE_GAP = 0.0015  # m, kept between fingertips and the table
DESCENT = (0.12, 0.08, 0.04, 0.0)  # m before a grasp, along the tool's axis: poses that must follow smoothly
LIFT = 0.16  # m upwards, after a grasp and before a place
TILT_SHARES = (1.0, 0.75, 0.5, 0.25)  # of the slack's tilt, tried from the far end inwards
JOINT_MARGIN = 0.05  # rad, that a reachable pose keeps from the joint limits
SIDEWAYS = 0.6  # rad, of the joints 3 and 5: beyond it, an arm evades a limit sideways and small ways become long ones
MAX_JUMP = 0.35  # rad, of any joint between poses of a descent
IK_ITERATIONS = 40


def reaches(kinematics: PandaKinematics, pose: np.ndarray, seed: np.ndarray | None = None) -> np.ndarray | None:
    """Joint angles f64[7] for the tool pose f64[7] (base frame), upright and off the limits; None: out of reach."""
    q = kinematics.inverse(pose, np.asarray(HOME_QPOS) if seed is None else seed, iterations=IK_ITERATIONS)
    if q is None or (q < kinematics.lower + JOINT_MARGIN).any() or (q > kinematics.upper - JOINT_MARGIN).any():
        return None
    return q if max(abs(q[2]), abs(q[4])) < SIDEWAYS else None


def hold_of(turn: float, tilt: float, along: float, above: float) -> np.ndarray:
    """A tool that grasps `turn` and `tilt` (rad), `along` and `above` (m) off the plain one, in its frame, f64[7]."""
    c, s, ct, st = np.cos(0.5 * turn), np.sin(0.5 * turn), np.cos(0.5 * tilt), np.sin(0.5 * tilt)
    x, y = along * np.cos(turn), along * np.sin(turn)
    return np.array([x, y, above, c * ct, -s * st, c * st, s * ct])


def choose_hold(
    planner: MotionPlanner, arm: int, target: ToolTarget, places: Sequence[ToolTarget], draw: Sequence[float]
) -> np.ndarray | None:
    """The hold f64[7] (see `hold_of`) that `draw` picks among those within the target's slack and the arm's reach.

    `draw` holds four numbers in [0, 1): for the pair of faces, the tilt, the place along them and the height. What is
    held must be in reach at those of the `places` too at which it would be by the plain grasp.
    None where not even the plain grasp is in reach.
    """
    slack = target.slack or Slack()
    quarter = -np.pi / 2 if target.turn > 0.0 else np.pi / 2  # the one nearer to neutral
    goals = [place for place in places if _can_place(planner, arm, place, hold_of(0.0, 0.0, 0.0, 0.0))]
    turns = [0.0, quarter] if slack.quarter else [0.0]
    tilts = {turn: ends for turn in turns if (ends := _reachable_tilts(planner, arm, target, goals, turn)) is not None}
    if not tilts:
        return None
    wanted = turns[int(draw[0] * len(turns))]
    turn = wanted if wanted in tilts else next(iter(tilts))
    tilt = _onto(*tilts[turn], slack.tilt, draw[1])
    least = _least_above(target, tilt)
    return hold_of(turn, tilt, (2.0 * draw[2] - 1.0) * slack.along, least + draw[3] * max(slack.above - least, 0.0))


def _onto(low: float, high: float, width: float, draw: float) -> float:
    """A number in [0, 1) -> [-width, width], and from what lies outside [low, high] evenly onto it."""
    value = (2.0 * draw - 1.0) * width
    if low <= value <= high:
        return value
    below, above = low + width, width - high
    past = value + width if value < low else below + value - high
    return low + past / (below + above) * (high - low)


def _least_above(target: ToolTarget, tilt: float) -> float:
    """How far above the plain grasp a tilted tool must hold, lest its fingertips touch the table, m."""
    width, depth = FINGERTIP
    return max(0.0, depth * np.cos(tilt) + width * np.sin(abs(tilt)) + TABLE_GAP - target.position[2])


def _reachable_tilts(
    planner: MotionPlanner, arm: int, target: ToolTarget, goals: Sequence[ToolTarget], turn: float
) -> tuple[float, float] | None:
    """The interval of tilts (rad) with which an arm can grasp, raise and place the object; None: there is none."""
    slack = target.slack or Slack()

    def reachable(tilt: float) -> bool:
        hold = hold_of(turn, tilt, 0.0, _least_above(target, tilt))
        return _can_grasp(planner, arm, target, hold) and all(_can_place(planner, arm, g, hold) for g in goals)

    def furthest(side: int) -> float | None:
        return next((tilt for share in TILT_SHARES if reachable(tilt := side * share * slack.tilt)), None)

    low, high = furthest(-1), furthest(1)
    if (low is None or high is None) and not reachable(0.0):
        return None
    return low or 0.0, high or 0.0


def _can_grasp(planner: MotionPlanner, arm: int, target: ToolTarget, hold: np.ndarray) -> bool:
    grasp = compose(planner.in_base(arm, target), hold)
    axis, q = tool_axis(grasp), None
    for back in DESCENT:
        before, q = q, reaches(planner.kinematics, np.concatenate([grasp[:3] + back * axis, grasp[3:]]), q)
        if q is None or (before is not None and np.abs(q - before).max() > MAX_JUMP):
            return False
    return reaches(planner.kinematics, compose(planner.in_base(arm, target.raised(LIFT)), hold)) is not None


def _can_place(planner: MotionPlanner, arm: int, place: ToolTarget, hold: np.ndarray) -> bool:
    poses = (compose(planner.in_base(arm, place.raised(rise)), hold) for rise in (LIFT, 0.0))
    return all(reaches(planner.kinematics, pose) is not None for pose in poses)
