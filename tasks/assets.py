"""Procedural objects: parts, mass, friction and grasp points that fit one another, drawn by name.

Every number comes from `Draws`, under the object's name, so that it is stored with the recipe.
"""

from __future__ import annotations

from envs import BoxPart, GoalSpec, ObjectSpec, make_pose
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.materials import PLASTIC, PVC

BLOCK_HALF = (0.018, 0.023)  # m
BLOCK_YAW = 0.65  # rad; short of 45 degrees, where the nearest grasp would be ambiguous
BASE_HALF_HEIGHT, GRIP_HALF = 0.012, (0.011, 0.016, 0.030)  # m, of a tray's slab and of its grips
TRAY_GRASP_ABOVE = 0.012  # m, of the tools above the grips' middle


def block(
    draws: Draws,
    name: str,
    xy: tuple[float, float],
    colour: str,
    half: tuple[float, float] = BLOCK_HALF,
    flat: float = 1.0,
) -> ObjectSpec:
    """A cube of half edge `half` (range, m) lying at `xy`, turned about the vertical.

    `flat` is its height as a share of the edge.
    """
    edge = draws.size(f"{name}_half", *half)
    parts = (BoxPart(half_size=(edge, edge, flat * edge)),)
    return ObjectSpec(
        name=name,
        parts=parts,
        pose=make_pose((*xy, flat * edge), draws.yaw(f"{name}_yaw", BLOCK_YAW)),
        mass=draws.mass(f"{name}_mass", PLASTIC, parts),
        friction=draws.physical(f"{name}_friction", 1.0),
        colour=colour_words()[colour],
    )


def disc(
    name: str, xy: tuple[float, float], height: float, tolerance: float, colour: str, radius: float = 0.04
) -> GoalSpec:
    """A disc on the table that wants an object's centre above it at `height`, within `tolerance` in the plane, m."""
    return GoalSpec(
        name=name,
        pose=make_pose((*xy, height)),
        tolerance=(tolerance, tolerance, 0.01),
        marker_half_size=(radius, radius, 0.001),
        colour=colour_words()[colour],
    )


def _tray_parts(length: float, width: float) -> tuple[BoxPart, ...]:
    """A slab of half extents `width` x `length` with two rims, and an upright grip at either end."""
    low = BASE_HALF_HEIGHT - GRIP_HALF[2]
    rim = (0.006, length - 0.04, 0.008)
    end = length - GRIP_HALF[1]
    return (
        BoxPart(half_size=(width, length, BASE_HALF_HEIGHT), position=(0.0, 0.0, low)),
        BoxPart(half_size=rim, position=(width - rim[0], 0.0, low + BASE_HALF_HEIGHT + rim[2]), shade=0.7),
        BoxPart(half_size=rim, position=(rim[0] - width, 0.0, low + BASE_HALF_HEIGHT + rim[2]), shade=0.7),
        BoxPart(half_size=GRIP_HALF, position=(0.0, end, 0.0), shade=0.5),
        BoxPart(half_size=GRIP_HALF, position=(0.0, -end, 0.0), shade=0.5),
    )


def tray(draws: Draws, xy: tuple[float, float], yaw: float, length: float, width: float, colour: str) -> ObjectSpec:
    """A heavy tray that only two hands can lift level, with a grasp point on either grip."""
    parts = _tray_parts(length, width)
    return ObjectSpec(
        name="tray",
        parts=parts,
        pose=make_pose((*xy, GRIP_HALF[2]), yaw),
        mass=draws.mass("mass", PVC, parts),
        friction=draws.physical("friction", 1.0),
        colour=colour_words()[colour],
        grasps=tuple((0.0, side * (length - GRIP_HALF[1]), TRAY_GRASP_ABOVE) for side in (1.0, -1.0)),
    )


def raised_tray(
    xy: tuple[float, float], yaw: float, lift: float, length: float, width: float, tolerance: float, colour: str
) -> GoalSpec:
    """A frame in the air, `lift` m above where a tray of these half extents stands."""
    return GoalSpec(
        name="goal",
        pose=make_pose((*xy, GRIP_HALF[2] + lift), yaw),
        tolerance=(tolerance, tolerance, tolerance),
        marker="frame",
        marker_half_size=(width + 0.012, 0.6 * length, 0.02),
        colour=colour_words()[colour],
    )
