"""Procedural things that hang and what they hang on: a ring with a tab, a stand with a peg. See `tasks.assets`."""

from __future__ import annotations

import numpy as np

from envs import BoxPart, ObjectSpec, make_pose
from envs.scene import Vec3
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.frames import facing, heading, to_local, to_world
from tasks.materials import ALUMINIUM, FOAM

BAR, TAB = 0.006, (0.026, 0.024, 0.007)  # m, half width of a ring's bars; half extents of its tab
TAB_GRASP_ABOVE = 0.005  # m, of the tool above the tab's middle: keeps fingertips off the table
POST, PEG = (0.015, 0.018), (0.038, 0.006, 0.006)  # m
FOOT, FOOT_BEFORE = (0.036, 0.050, 0.006), 0.016  # m, half extents; how far it reaches from the post on the peg's side
ABOVE_PEG, GRASP_BELOW = 0.045, 0.014  # m, of the post's top above the peg; of the tool below that top


def ring(draws: Draws, side: int, xy: tuple[float, float], yaw: float, hole: float, colour: str) -> ObjectSpec:
    """A flat square ring about a hole of half width `hole`, its frame in the hole's middle, a tab to hold it at -x."""
    outer, middle, thick = hole + 2 * BAR, hole + BAR, TAB[2]
    parts = (
        *(BoxPart(half_size=(BAR, outer, thick), position=(s * middle, 0.0, 0.0)) for s in (1.0, -1.0)),
        *(BoxPart(half_size=(hole, BAR, thick), position=(0.0, s * middle, 0.0)) for s in (1.0, -1.0)),
        BoxPart(half_size=TAB, position=(-outer - TAB[0], 0.0, 0.0), shade=0.6),
    )
    return ObjectSpec(
        name="ring",
        parts=parts,
        pose=make_pose((*facing(side, *xy), thick), heading(side, yaw)),
        mass=draws.mass("ring_mass", ALUMINIUM, parts),
        friction=draws.physical("ring_friction", 0.8),
        colour=colour_words()[colour],
        grasps=((-outer - 1.2 * TAB[0], 0.0, TAB_GRASP_ABOVE),),
    )


def stand(draws: Draws, side: int, xy: tuple[float, float], yaw: float, height: float, colour: str) -> ObjectSpec:
    """A post with a peg at `height` m that points to -x; so light, on so short a foot, that a ring tips it over."""
    top = height + ABOVE_PEG
    middle = 0.5 * top  # of the frame above the table
    parts = (
        BoxPart(half_size=FOOT, position=(FOOT[0] - FOOT_BEFORE, 0.0, FOOT[2] - middle), shade=0.7),
        BoxPart(half_size=(*POST, middle - FOOT[2]), position=(0.0, 0.0, FOOT[2])),
        BoxPart(half_size=PEG, position=(-POST[0] - PEG[0], 0.0, height - middle), shade=0.5),
    )
    return ObjectSpec(
        name="stand",
        parts=parts,
        pose=make_pose((*facing(side, *xy), middle), heading(side, yaw)),
        mass=draws.mass("stand_mass", FOAM, parts),
        friction=draws.physical("stand_friction", 0.8),
        colour=colour_words()[colour],
        grasps=((0.0, 0.0, middle - GRASP_BELOW),),
    )


def peg_middle(spec: ObjectSpec) -> Vec3:
    """The middle of a stand's peg, in the stand's frame, m."""
    return spec.parts[-1].position


def hole_half_width(spec: ObjectSpec) -> float:
    """Half width of a ring's hole, m."""
    return spec.half_extents[1] - 2 * BAR


def threaded(ring_pose: np.ndarray, hole: float, stand_pose: np.ndarray, peg: Vec3) -> bool:
    """Whether the peg goes through the ring: its ends on either side of the ring's plane, its axis through the hole."""
    root, tip = (to_local(ring_pose, to_world(stand_pose, (peg[0] + s * PEG[0], *peg[1:]))) for s in (1.0, -1.0))
    if root[2] * tip[2] >= 0.0:
        return False
    through = root + (tip - root) * root[2] / (root[2] - tip[2])
    return bool(np.abs(through[:2]).max() < hole)
