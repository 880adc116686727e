"""A procedural drawer in a cabinet, opened by a post. See `tasks.assets`."""

from __future__ import annotations

from envs import BoxPart, JointSpec, ObjectSpec, make_pose
from envs.scene import Vec3
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.materials import PVC

ORIGIN_HEIGHT = 0.026  # m, of the drawer's frame above the table
DEPTH = 0.050  # m, half depth of the drawer
INNER = DEPTH - 0.008  # m, of its inside
FLOOR = -0.014  # m, the drawer's floor in its frame
TRAVEL = 0.130  # m, the joint's limit
HANDLE_X, HANDLE_TOP = -DEPTH - 0.030, 0.050  # m, in the drawer's frame


def drawer(draws: Draws, place: Vec3, yaw: float, width: float, colour: str) -> ObjectSpec:
    """A drawer of half width `width`, m, shut in a cabinet that stands fast; it comes out along its -x.

    `place` is x, y, and the height of the foot that the cabinet stands on, m.
    """
    parts = _box(width)
    return ObjectSpec(
        name="drawer",
        parts=parts,
        base=_cabinet(width, place[2]),
        joint=JointSpec(
            kind="slide",
            axis=(-1.0, 0.0, 0.0),
            limits=(0.0, TRAVEL),
            friction=draws.physical("joint_friction", 0.05),
            damping=draws.physical("joint_damping", 8.0),
        ),
        pose=make_pose((*place[:2], ORIGIN_HEIGHT + place[2]), yaw),
        mass=draws.mass("drawer_mass", PVC, parts),
        friction=draws.physical("drawer_friction", 0.8),
        colour=colour_words()[colour],
        grasps=((HANDLE_X, 0.0, HANDLE_TOP - 0.012),),
    )


def _box(width: float) -> tuple[BoxPart, ...]:
    """An open box with a post for a handle before it (-x)."""
    return (
        BoxPart(half_size=(DEPTH, width, 0.004), position=(0.0, 0.0, -0.018)),
        *(BoxPart(half_size=(DEPTH, 0.004, 0.018), position=(0.0, s * (width - 0.004), 0.004)) for s in (1.0, -1.0)),
        BoxPart(half_size=(0.004, width, 0.018), position=(DEPTH - 0.004, 0.0, 0.004)),
        BoxPart(half_size=(0.004, width, 0.022), position=(-DEPTH, 0.0, 0.004), shade=0.8),
        BoxPart(half_size=(0.014, 0.008, 0.006), position=(-DEPTH - 0.016, 0.0, 0.0), shade=0.5),
        BoxPart(half_size=(0.008, 0.030, 0.035), position=(HANDLE_X, 0.0, HANDLE_TOP - 0.035), shade=0.5),
    )


def _cabinet(width: float, foot: float) -> tuple[BoxPart, ...]:
    """Roof, sides and back around the closed drawer, down to the table."""
    side, long = width + 0.008, DEPTH + 0.005
    middle, tall = 0.015 - 0.5 * foot, 0.041 + 0.5 * foot
    return (
        BoxPart(half_size=(long, side + 0.004, 0.004), position=(0.005, 0.0, 0.056), shade=0.6),
        *(BoxPart(half_size=(long, 0.004, tall), position=(0.005, s * side, middle), shade=0.6) for s in (1.0, -1.0)),
        BoxPart(half_size=(0.004, side + 0.004, tall), position=(DEPTH + 0.009, 0.0, middle), shade=0.6),
    )
