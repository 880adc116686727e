"""A scene as frozen data: what stands on the table, where the arms start, how it looks.

Owns no simulator. A task draws a `SceneSpec`; `envs.world.DualArmWorld` builds it. Everything is in
the world frame: metres, kilograms, radians, quaternions wxyz. The table top is the plane z = 0; the
left arm stands at y > 0, the right arm at y < 0, facing each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from envs.appearance import Appearance, Vec3

Pose7 = tuple[float, float, float, float, float, float, float]

IDENTITY: Pose7 = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


def make_pose(position: Sequence[float], yaw: float = 0.0) -> Pose7:
    """Pose with a rotation about the vertical only; `yaw` in radians, result has `qw >= 0`."""
    x, y, z = (float(v) for v in position)
    half = 0.5 * float(np.arctan2(np.sin(yaw), np.cos(yaw)))
    return (x, y, z, float(np.cos(half)), 0.0, 0.0, float(np.sin(half)))


def _require_positive(owner: str, **values: float | Sequence[float]) -> None:
    """Raises `ValueError` naming the first value that is not a positive finite number."""
    for name, value in values.items():
        numbers = np.asarray(value, dtype=np.float64)
        if not (np.isfinite(numbers).all() and (numbers > 0.0).all()):
            raise ValueError(f"{owner}: {name}={value}, expected positive finite numbers")


def _require_finite(owner: str, **values: Sequence[float] | Sequence[Sequence[float]]) -> None:
    for name, value in values.items():
        if not np.isfinite(np.asarray(value, dtype=np.float64)).all():
            raise ValueError(f"{owner}: {name}={value}, expected finite numbers")


def _require_pose(owner: str, pose: Pose7) -> None:
    _require_finite(owner, pose=pose)
    if abs(float(np.linalg.norm(pose[3:])) - 1.0) > 1e-3:
        raise ValueError(f"{owner}: pose={pose}, expected a unit quaternion")


@dataclass(frozen=True, kw_only=True)
class BoxPart:
    """One box of an object.

    Attributes:
        half_size: half extents, m.
        position: centre in the object's frame, m.
        shade: factor on the object's colour, so that parts can be told apart.
    """

    half_size: Vec3
    position: Vec3 = (0.0, 0.0, 0.0)
    shade: float = 1.0


@dataclass(frozen=True, kw_only=True)
class JointSpec:
    """How an object moves against a base that is fixed to the table.

    Attributes:
        kind: "slide" along `axis`, or "hinge" about it.
        axis: unit vector in the object's frame.
        anchor: a point of the axis, in the object's frame, m.
        limits: lowest and highest position, m or rad; the object starts at 0.
        friction: PhysX's coefficient: motion is resisted in proportion to what the joint bears; a held load may creep.
        damping: N s/m or N m s/rad.
    """

    kind: str
    axis: Vec3
    limits: tuple[float, float]
    anchor: Vec3 = (0.0, 0.0, 0.0)
    friction: float = 0.05
    damping: float = 5.0

    def __post_init__(self) -> None:
        if self.kind not in ("slide", "hinge"):
            raise ValueError(f"joint: kind={self.kind!r}, expected 'slide' or 'hinge'")
        if not self.limits[0] <= 0.0 <= self.limits[1]:
            raise ValueError(f"joint: limits={self.limits}, expected an interval around 0")
        if min(self.friction, self.damping) < 0.0:
            raise ValueError(f"joint: friction={self.friction}, damping={self.damping}, expected none negative")
        _require_finite(
            "joint", anchor=self.anchor, limits=self.limits, friction=(self.friction,), damping=(self.damping,)
        )
        if not abs(float(np.linalg.norm(self.axis)) - 1.0) <= 1e-6:
            raise ValueError(f"joint: axis={self.axis}, expected a unit vector")


@dataclass(frozen=True, kw_only=True)
class ObjectSpec:
    """A rigid object made of boxes of one density; with a joint, it moves against a fixed base.

    Attributes:
        name: unique in the scene.
        parts: its boxes; the union of their extents, centred on the object's frame, is its size.
        pose: initial pose of the object's frame.
        mass: kg, spread over the parts by volume, which also fixes the inertia.
        friction: static and dynamic friction coefficient.
        colour: linear RGB in [0, 1].
        grasps: points in the object's frame where a gripper can hold it, m; an arm is offered the one nearest to its
            base.
        joint: None for a free body.
        base: boxes that stay where `pose` puts them; only with a joint.
        mass_offset: how far the centre of mass lies from that of one density, in the object's frame, m. Density then
            varies linearly through the object, and the inertia follows.
    """

    name: str
    parts: tuple[BoxPart, ...]
    pose: Pose7
    mass: float
    friction: float = 1.0
    colour: Vec3 = (0.8, 0.2, 0.2)
    grasps: tuple[Vec3, ...] = ((0.0, 0.0, 0.0),)
    joint: JointSpec | None = None
    base: tuple[BoxPart, ...] = ()
    mass_offset: Vec3 = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError(f"object {self.name!r}: expected at least one part")
        if not self.grasps:
            raise ValueError(f"object {self.name!r}: expected at least one grasp point")
        if self.base and self.joint is None:
            raise ValueError(f"object {self.name!r}: a base without a joint")
        owner = f"object {self.name!r}"
        for part in (*self.parts, *self.base):
            _require_positive(f"{owner}: a part has no size", half_size=part.half_size)
            _require_finite(owner, position=part.position)
        _require_positive(owner, mass=self.mass, friction=self.friction)
        _require_pose(owner, self.pose)
        _require_finite(owner, grasps=self.grasps)

    @property
    def half_extents(self) -> Vec3:
        """Half extents of the smallest box, centred on the object's frame, that holds every part."""
        reach = [np.abs(p.position) + np.asarray(p.half_size) for p in self.parts]
        x, y, z = np.max(reach, axis=0)
        return (float(x), float(y), float(z))

    @property
    def volume(self) -> float:
        """Sum of the parts' volumes, m^3."""
        return float(sum(8.0 * np.prod(p.half_size) for p in self.parts))


@dataclass(frozen=True, kw_only=True)
class GoalSpec:
    """Where an object is wanted; only drawn, never touched by physics.

    Attributes:
        name: unique in the scene.
        pose: wanted pose of the object's frame.
        tolerance: how far off, per axis, still counts, m.
        marker: "disc" lies on the table under the pose; "frame" hangs in the air as four corner posts.
        marker_half_size: half extents of the "frame" marker, m; the disc's radius is its first entry.
        colour: linear RGB.
    """

    name: str
    pose: Pose7
    tolerance: Vec3
    marker: str = "disc"
    marker_half_size: Vec3 = (0.04, 0.04, 0.001)
    colour: Vec3 = (0.2, 0.7, 0.3)

    def __post_init__(self) -> None:
        if self.marker not in ("disc", "frame"):
            raise ValueError(f"goal {self.name!r}: marker={self.marker!r}, expected 'disc' or 'frame'")
        _require_pose(f"goal {self.name!r}", self.pose)
        _require_positive(f"goal {self.name!r}", tolerance=self.tolerance, marker_half_size=self.marker_half_size)


@dataclass(frozen=True, kw_only=True)
class ArmControl:
    """How one arm's drives follow their targets.

    Attributes:
        stiffness: factor on the drives' stiffness.
        damping: factor on their damping.
        latency: physics steps by which a command reaches them late.
    """

    stiffness: float = 1.0
    damping: float = 1.0
    latency: int = 0

    def __post_init__(self) -> None:
        if self.stiffness <= 0.0 or self.damping < 0.0 or self.latency < 0:
            raise ValueError(f"arm control: {self}, expected positive gains and a latency of 0 or more steps")


@dataclass(frozen=True, kw_only=True)
class SceneSpec:
    """All that `DualArmWorld.rebuild` needs.

    Attributes:
        objects: rigid objects, in the order in which observations list them.
        goals: goal markers, likewise.
        arm_qpos: initial joint angles of the left and the right arm, 2 x 7, radians.
        table_colour: linear RGB.
        appearance: light, surfaces, cameras; the plain look unless the domain varies it.
        base_distance: of each arm's base from the middle of the table, m.
        arm_control: of the left and the right arm.
        grasp_draws: numbers in [0, 1), four for each grasp of an expert in turn, by which it chooses among the grasps
            that it can reach; empty: it takes the plain ones.
    """

    objects: tuple[ObjectSpec, ...]
    goals: tuple[GoalSpec, ...]
    arm_qpos: tuple[tuple[float, ...], tuple[float, ...]]
    table_colour: Vec3 = (0.62, 0.58, 0.52)
    appearance: Appearance = field(default_factory=Appearance)
    base_distance: float = 0.70
    arm_control: tuple[ArmControl, ArmControl] = (ArmControl(), ArmControl())
    grasp_draws: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        names = [o.name for o in self.objects] + [g.name for g in self.goals]
        if len(set(names)) != len(names):
            raise ValueError(f"scene: names must be unique, got {names}")
        if [len(q) for q in self.arm_qpos] != [7, 7]:
            raise ValueError("scene: arm_qpos must hold two times seven joint angles")
        _require_finite("scene", arm_qpos=self.arm_qpos)
        _require_positive("scene", base_distance=self.base_distance)
