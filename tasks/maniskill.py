"""What ManiSkill's two-robot tasks share: the arms' places, the cubes and where they lie.

The numbers are those of mani_skill 3.0.1, `envs/tasks/tabletop/two_robot_{pick,stack}_cube.py`,
`utils/scene_builder/table/scene_builder.py` (bases, rest posture) and `utils/structs/types.py` (friction), in the same
world frame. ManiSkill looks at its table from the other side: the robot it calls left, at y < 0, is our right arm.
Things lie up to `X_BEYOND` farther along x than ManiSkill draws them; everything else is judged and drawn as there.
ManiSkill's noise on the rest posture is normal with sigma 0.02 rad; here the domain's own takes its place. Sizes,
masses and friction are ManiSkill's without the stage `physics`, and vary around them with it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from envs import BoxPart, GoalSpec, ObjectSpec, SceneSpec, make_pose
from tasks.domain import colour_words
from tasks.draws import Draws
from tasks.materials import PLASTIC

BASE_DISTANCE = 0.75  # m
REST_QPOS = (0.0, np.pi / 8, 0.0, -np.pi * 5 / 8, 0.0, np.pi * 3 / 4, np.pi / 4)  # rad
CUBE_HALF = (0.018, 0.022)  # m, around ManiSkill's 0.02
CUBE_FRICTION = 0.3
X_BEYOND = 0.05  # m, farther to either end than ManiSkill's own 0.05 m, within which replayed actions win too often
X_RANGE = (-0.05 - X_BEYOND, 0.05 + X_BEYOND)  # m
NEAR_RANGE = (0.10, 0.20)  # m, the distance from the middle to either side
FAR_NOISE = 0.3  # share of the execution noise where an arm is stretched out: all of it moves a tool by 2 cm
NEAR_ARM, FAR_ARM = 1, 0  # at y < 0, ManiSkill's "left" robot, and at y > 0, its "right" one


def side_of(arm: int) -> float:
    """The sign of y on the side of the table where `arm` stands."""
    return 1.0 if arm == 0 else -1.0


def cube(draws: Draws, name: str, arm: int, colour: str) -> ObjectSpec:
    """A cube of about 4 cm that only `arm` can reach straight down, turned about the vertical at random."""
    xy = (draws.position(f"{name}_x", *X_RANGE), side_of(arm) * draws.position(f"{name}_side", *NEAR_RANGE))
    half = draws.size(f"{name}_half", *CUBE_HALF)
    parts = (BoxPart(half_size=(half, half, half)),)
    return ObjectSpec(
        name=name,
        parts=parts,
        pose=make_pose((*xy, half), draws.yaw(f"{name}_yaw", np.pi)),
        mass=draws.mass(f"{name}_mass", PLASTIC, parts),
        friction=draws.physical(f"{name}_friction", CUBE_FRICTION),
        colour=colour_words()[colour],
    )


def arena(draws: Draws, objects: tuple[ObjectSpec, ...], goal: GoalSpec) -> SceneSpec:
    """The scene: ManiSkill's base distance and rest posture."""
    return replace(draws.scene(objects, (goal,), REST_QPOS), base_distance=BASE_DISTANCE)
