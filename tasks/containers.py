"""Procedural things to put things into: open boxes, and what is made of them. See `tasks.assets`."""

from __future__ import annotations

from collections.abc import Iterable

from envs import BoxPart, JointSpec, ObjectSpec, make_pose
from envs.scene import Vec3
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.frames import facing, heading, to_world
from tasks.materials import FOAM, PVC, STONE

WALL = 0.004  # m, half thickness of a chest's walls, floor and lid
CHEST_HEIGHT, KNOB_HALF, KNOB_INSET = 0.068, (0.010, 0.030, 0.020), 0.020  # m

THIN = 0.002  # m, half thickness of a cup's walls; a bowl's are twice that
CUP_GRASP, BEAD_HALF = (-0.004, 0.0, 0.014), (0.0070, 0.0085)  # m
BOWL_HALF_HEIGHT, BOWL_HANDLE, BOWL_HANDLE_Z = 0.024, (0.010, 0.048, 0.014), 0.010  # m
SOCKET_HALF_HEIGHT, SOCKET_WALL, SOCKET_TAB = 0.022, 0.005, (0.011, 0.034, 0.017)  # m; a tab off the table could tip it


def open_box(inner: Vec3, wall: float, middle: Vec3 = (0.0, 0.0, 0.0), shade: float = 1.0) -> tuple[BoxPart, ...]:
    """A floor and four walls of half thickness `wall` around a hollow of half extents `inner`, whose middle is given.

    The floor's top is the hollow's bottom, the walls end level with its top.
    """
    (x, y, z), (mx, my, mz) = inner, middle
    return (
        BoxPart(half_size=(x + 2 * wall, y + 2 * wall, wall), position=(mx, my, mz - z - wall), shade=shade),
        *(BoxPart(half_size=(wall, y + 2 * wall, z), position=(mx + s * (x + wall), my, mz)) for s in (1.0, -1.0)),
        *(
            BoxPart(half_size=(x, wall, z), position=(mx, my + s * (y + wall), mz), shade=0.85 * shade)
            for s in (1.0, -1.0)
        ),
    )


def chest(
    draws: Draws, side: int, xy: tuple[float, float], yaw: float, half: tuple[float, float], colour: str
) -> ObjectSpec:
    """A chest whose lid turns about its edge at +x; fallen shut, with a knob near -x. The moving body is the lid.

    The lid cannot pass the vertical, so it falls shut unless it is held. `xy` and `yaw` are as arm `side` sees them.
    """
    depth, width = half
    inner = (depth - 2 * WALL, width - 2 * WALL, 0.5 * CHEST_HEIGHT - WALL)
    lid = (
        BoxPart(half_size=(depth, width, WALL)),
        BoxPart(half_size=KNOB_HALF, position=(KNOB_INSET - depth, 0.0, WALL + KNOB_HALF[2]), shade=0.5),
    )
    return ObjectSpec(
        name="chest",
        parts=lid,
        base=open_box(inner, WALL, (0.0, 0.0, -0.5 * CHEST_HEIGHT), shade=0.7),
        joint=JointSpec(
            kind="hinge",
            axis=(0.0, 1.0, 0.0),
            anchor=(depth, 0.0, -WALL),
            limits=(0.0, 1.48),
            friction=draws.physical("hinge_friction", 0.004),
            damping=draws.physical("hinge_damping", 0.02),
        ),
        pose=make_pose((*facing(side, *xy), CHEST_HEIGHT + WALL), heading(side, yaw)),
        mass=draws.mass("lid_mass", PVC, lid),
        friction=draws.physical("chest_friction", 0.8),
        colour=colour_words()[colour],
        grasps=((KNOB_INSET - depth, 0.0, WALL + KNOB_HALF[2] + 0.003),),
    )


def cup(
    draws: Draws, side: int, xy: tuple[float, float], yaw: float, half: tuple[float, float], colour: str
) -> ObjectSpec:
    """A tall square cup of half width and half height `half`, with a grasp point a little above its middle."""
    width, height = half
    inner = (width - 2 * THIN, width - 2 * THIN, height - THIN)
    parts = open_box(inner, THIN, (0.0, 0.0, THIN))
    return ObjectSpec(
        name="cup",
        parts=parts,
        pose=make_pose((*facing(side, *xy), height), heading(side, yaw)),
        mass=draws.mass("cup_mass", PVC, parts),
        friction=draws.physical("cup_friction", 0.5),
        colour=colour_words()[colour],
        grasps=(CUP_GRASP,),
    )


def beads(draws: Draws, holder: ObjectSpec, count: int, colour: str) -> tuple[ObjectSpec, ...]:
    """Small smooth cubes on the floor of a cup, up to four, which slide out where it tips over."""
    half = draws.size("bead_half", *BEAD_HALF)
    parts = (BoxPart(half_size=(half, half, half)),)
    mass, friction = draws.mass("bead_mass", STONE, parts), draws.physical("bead_friction", 0.25)
    floor, apart = 2 * THIN - holder.half_extents[2], half + 0.002
    return tuple(
        ObjectSpec(
            name=f"bead_{i}",
            parts=parts,
            pose=(*_floats(to_world(holder.pose, (sx * apart, sy * apart, floor + half))), *holder.pose[3:]),
            mass=mass,
            friction=friction,
            colour=colour_words()[colour],
        )
        for i, (sx, sy) in enumerate(((1, 1), (-1, -1), (1, -1), (-1, 1))[:count])
    )


def bowl(draws: Draws, side: int, xy: tuple[float, float], yaw: float, width: float, colour: str) -> ObjectSpec:
    """A shallow bowl of inner half extent `width` with a long handle at -y, where a hand holds it out."""
    outer = width + 4 * THIN
    length = BOWL_HANDLE[1]
    parts = (
        *open_box((width, width, BOWL_HALF_HEIGHT - 2 * THIN), 2 * THIN, (0.0, 0.0, 2 * THIN)),
        BoxPart(half_size=BOWL_HANDLE, position=(0.0, -outer - length, BOWL_HANDLE_Z), shade=0.6),
    )
    return ObjectSpec(
        name="bowl",
        parts=parts,
        pose=make_pose((*facing(side, *xy), BOWL_HALF_HEIGHT), heading(side, yaw)),
        mass=draws.mass("bowl_mass", FOAM, parts),
        friction=draws.physical("bowl_friction", 0.6),
        colour=colour_words()[colour],
        grasps=((0.0, -outer - 2 * length + 0.018, BOWL_HANDLE_Z),),
    )


def socket(draws: Draws, side: int, xy: tuple[float, float], yaw: float, hole: float, colour: str) -> ObjectSpec:
    """A block with a square hole of half width `hole`, closed below; a tab at +y, on the table too, to hold it by."""
    depth = SOCKET_HALF_HEIGHT - SOCKET_WALL
    outer, length = hole + 2 * SOCKET_WALL, SOCKET_TAB[1]
    parts = (
        *open_box((hole, hole, depth), SOCKET_WALL, (0.0, 0.0, SOCKET_WALL)),
        BoxPart(half_size=SOCKET_TAB, position=(0.0, outer + length, SOCKET_TAB[2] - SOCKET_HALF_HEIGHT), shade=0.6),
    )
    return ObjectSpec(
        name="socket",
        parts=parts,
        pose=make_pose((*facing(side, *xy), SOCKET_HALF_HEIGHT), heading(side, yaw)),
        mass=draws.mass("socket_mass", PVC, parts),
        friction=draws.physical("socket_friction", 0.6),
        colour=colour_words()[colour],
        grasps=((0.0, outer + 2 * length - 0.016, 0.0),),
    )


def _floats(values: Iterable[float]) -> Vec3:
    x, y, z = (float(v) for v in values)
    return x, y, z
