"""Procedural devices for two arms: a basket with handles, a wiper with two grips, a switch behind a safety bar.

As in `tasks.assets`, every number comes from `Draws`, and mass, friction, joints and grasp points fit the parts.
"""

from __future__ import annotations

from envs import BoxPart, JointSpec, ObjectSpec, make_pose
from envs.scene import Vec3
from tasks.assets import GRIP_HALF, TRAY_GRASP_ABOVE
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.materials import ALUMINIUM, PVC, WOOD

BASKET_FLOOR, WALL, WALL_TOP = 0.004, 0.004, 0.046  # m: half thickness of floor and walls, height of the walls
BASKET_LENGTH = 0.150  # m, from a basket's middle to the outside of a handle
FLOOR_TOP = 2.0 * BASKET_FLOOR - GRIP_HALF[2]  # m, in a basket's frame

BLADE_HALF, WINGS = (0.010, 0.013), (-0.022, 0.032)  # m: a wiper's blade; its wings, which keep crumbs in and it up
WIPER_GRIP = (0.010, 0.012, 0.026)  # m, half extents of a wiper's grips
WIPER_INSET = 0.045  # m, from a wiper's ends to its grips

PIVOT = 0.020  # m, height of a switch's hinge
THROW = 1.10  # rad, from upright to the switch's stop
HANDLE = (0.008, 0.046, 0.012)  # m, half extents of a switch's handle
HANDLE_OUT = 0.064  # m, from the lever to where a hand pushes the handle
BAR_BELOW = 0.015  # m, of a safety bar's middle below the top of the lever that it bars
BAR_HALF, BAR_END, PAD_HALF = (0.009, 0.007), 0.010, (0.022, 0.022, 0.005)  # m
BAR_GAP = 0.022  # m, from the lever's middle to the bar's
BAR_TRAVEL = 0.42  # rad, how far a safety bar can be pressed


def basket(draws: Draws, xy: tuple[float, float], yaw: float, width: float, length: float, colour: str) -> ObjectSpec:
    """An open basket whose inside measures 2 `width` x 2 `length` m; a handle beyond either end, along y."""
    low = BASKET_FLOOR - GRIP_HALF[2]
    half_wall = 0.5 * (WALL_TOP - 2.0 * BASKET_FLOOR)
    middle = FLOOR_TOP + half_wall
    long_wall, short_wall = (WALL, length + 2.0 * WALL, half_wall), (width, WALL, half_wall)
    handle = BASKET_LENGTH - GRIP_HALF[1]
    sides = (1.0, -1.0)
    parts = (
        BoxPart(half_size=(width + 2.0 * WALL, length + 2.0 * WALL, BASKET_FLOOR), position=(0.0, 0.0, low)),
        BoxPart(half_size=(0.030, BASKET_LENGTH, BASKET_FLOOR), position=(0.0, 0.0, low), shade=0.8),
        *(BoxPart(half_size=long_wall, position=(s * (width + WALL), 0.0, middle)) for s in sides),
        *(BoxPart(half_size=short_wall, position=(0.0, s * (length + WALL), middle), shade=0.8) for s in sides),
        *(BoxPart(half_size=GRIP_HALF, position=(0.0, s * handle, 0.0), shade=0.5) for s in sides),
    )
    return ObjectSpec(
        name="basket",
        parts=parts,
        pose=make_pose((*xy, GRIP_HALF[2]), yaw),
        mass=draws.mass("basket_mass", PVC, parts),
        friction=draws.physical("basket_friction", 0.9),
        colour=colour_words()[colour],
        grasps=tuple((0.0, s * handle, TRAY_GRASP_ABOVE) for s in sides),
    )


def wiper(draws: Draws, xy: tuple[float, float], yaw: float, length: float, colour: str) -> ObjectSpec:
    """A blade of half length `length` m along y, which sweeps towards its x; two upright grips, wings at its ends."""
    grip_height = 2.0 * BLADE_HALF[1] + WIPER_GRIP[2]
    low, sides = BLADE_HALF[1] - grip_height, (1.0, -1.0)
    back, front = WINGS
    wing = (0.5 * (front - back), 0.005, BLADE_HALF[1])
    parts = (
        BoxPart(half_size=(BLADE_HALF[0], length, BLADE_HALF[1]), position=(0.0, 0.0, low)),
        *(
            BoxPart(half_size=wing, position=(0.5 * (front + back), s * (length + wing[1]), low), shade=0.8)
            for s in sides
        ),
        *(BoxPart(half_size=WIPER_GRIP, position=(0.0, s * (length - WIPER_INSET), 0.0), shade=0.5) for s in sides),
    )
    return ObjectSpec(
        name="wiper",
        parts=parts,
        pose=make_pose((*xy, grip_height), yaw),
        mass=draws.mass("wiper_mass", PVC, parts),
        friction=draws.physical("wiper_friction", 0.5),
        colour=colour_words()[colour],
        grasps=tuple((0.0, s * (length - WIPER_INSET), 0.004) for s in sides),
    )


def switch(draws: Draws, place: Vec3, yaw: float, length: float, side: int, way: int, colour: str) -> ObjectSpec:
    """An upright lever of `length` m, to be thrown along `way` (+-1) of its x; its handle is on `side` (+-1) of y.

    `place` is its foot's: x, y, and the height of the block that it stands on, m.
    """
    top = length - HANDLE[2]
    parts = (
        BoxPart(half_size=(0.008, 0.012, 0.5 * length), position=(0.0, 0.0, 0.5 * length)),
        BoxPart(half_size=HANDLE, position=(0.0, side * (HANDLE[1] - 0.012), top), shade=0.6),
    )
    return ObjectSpec(
        name="switch",
        parts=parts,
        base=(
            _plinth((0.032, 0.034), -PIVOT, place[2]),
            *(BoxPart(half_size=(0.014, 0.005, 0.016), position=(0.0, s * 0.018, -0.004), shade=0.5) for s in (1, -1)),
        ),
        joint=JointSpec(
            kind="hinge",
            axis=(0.0, float(way), 0.0),
            limits=(0.0, THROW),
            friction=draws.physical("switch_friction", 0.6),
            damping=draws.physical("switch_damping", 0.6),
        ),
        pose=make_pose((*place[:2], place[2] + PIVOT), yaw),
        mass=draws.mass("switch_mass", WOOD, parts),
        colour=colour_words()[colour],
        grasps=((-way * HANDLE[0], side * HANDLE_OUT, top),),
    )


def _plinth(half: tuple[float, float], bottom: float, height: float) -> BoxPart:
    """A foot plate 1 cm thick at `bottom` m, down to `height` m below that."""
    thick = 0.5 * (0.01 + height)
    return BoxPart(half_size=(*half, thick), position=(0.0, 0.0, bottom + 0.01 - thick), shade=0.5)


def safety_bar(draws: Draws, place: Vec3, yaw: float, reach: float, lever: float, side: int, colour: str) -> ObjectSpec:
    """A see-saw along y: one end bars a lever of length `lever`, `reach` m along `side` (+-1) of y; a pad at the other.

    It is heavier on the barring side: that end rises while a hand presses the pad, and comes down again after.
    `place` as in `switch`.
    """
    height = PIVOT + lever - BAR_BELOW
    parts = (
        BoxPart(half_size=(BAR_HALF[0], reach + BAR_END, BAR_HALF[1])),
        BoxPart(half_size=PAD_HALF, position=(0.0, -side * reach, 0.0), shade=0.6),
        BoxPart(half_size=(0.028, 0.022, 0.020), position=(0.0, side * 0.58 * reach, -0.012), shade=0.6),
    )
    return ObjectSpec(
        name="safety_bar",
        parts=parts,
        base=(
            BoxPart(half_size=(0.010, 0.012, 0.5 * height - 0.008), position=(0.0, 0.0, -0.5 * height), shade=0.5),
            _plinth((0.035, 0.035), -height, place[2]),
        ),
        joint=JointSpec(
            kind="hinge",
            axis=(float(side), 0.0, 0.0),
            limits=(0.0, BAR_TRAVEL),
            friction=draws.physical("bar_joint_friction", 0.004),
            damping=draws.physical("bar_joint_damping", 0.1),
        ),
        pose=make_pose((*place[:2], place[2] + height), yaw),
        mass=draws.mass("bar_mass", ALUMINIUM, parts),
        colour=colour_words()[colour],
        grasps=((0.0, -side * reach, PAD_HALF[2]),),
    )
