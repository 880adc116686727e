"""What the predicates are made of: touch, distance, rest and tilt, read from physics state."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from envs.world import DualArmWorld

REST_SPEED = 0.03  # m/s
REST_SPIN = 0.3  # rad/s
MAX_TILT = float(np.deg2rad(10.0))
HEIGHT_SLACK = 0.008  # m, by which an object's centre may be off the height at which it lies


def holding(touch: np.ndarray) -> np.ndarray:
    """bool[2]: which arms hold the object between both fingers; `touch` is bool[2 arms, 2 fingers]."""
    return np.logical_and(touch[:, 0], touch[:, 1])


def at_rest(world: DualArmWorld, index: int = 0) -> bool:
    """Whether object `index` moved slower than 3 cm/s and 0.3 rad/s over the last control step."""
    speed, spin = world.object_motion()[index]
    return bool(speed < REST_SPEED and spin < REST_SPIN)


def all_at_rest(world: DualArmWorld) -> bool:
    """Whether every object moved slower than 3 cm/s and 0.3 rad/s."""
    return all(at_rest(world, i) for i in range(len(world.spec_scene.objects)))


def left_alone(world: DualArmWorld, touch: Iterable[np.ndarray]) -> bool:
    """Whether no finger touches anything, and objects 0, 1, ... are at rest; `touch` is bool[2, 2] for each."""
    return all(not t.any() and at_rest(world, i) for i, t in enumerate(touch))


def lies_on(pose: np.ndarray, place: np.ndarray | tuple[float, ...], height: float, tolerance: float) -> bool:
    """Whether an object's centre is within `tolerance` of a place in the plane, and at `height`, m."""
    return planar_distance(pose, place) < tolerance and abs(float(pose[2]) - height) < HEIGHT_SLACK


def tilt(pose: np.ndarray) -> float:
    """Angle between the object's z axis and the vertical, rad."""
    _, x, y, _ = pose[3:]
    return float(np.arccos(np.clip(1.0 - 2.0 * (x * x + y * y), -1.0, 1.0)))


def yaw_of(pose: np.ndarray | tuple[float, ...]) -> float:
    """Rotation of the object about the vertical, rad."""
    w, x, y, z = pose[3:]
    return float(np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z)))


def face_yaw(pose: np.ndarray) -> float:
    """Rotation about the vertical of the most level axis of a cube that may have rolled over, rad modulo a quarter."""
    if tilt(pose) < MAX_TILT:
        return yaw_of(pose)
    w, x, y, z = (float(v) for v in pose[3:])
    axes = [
        (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)),
        (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)),
        (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)),
    ]
    level = min(axes, key=lambda axis: abs(axis[2]))
    return float(np.arctan2(level[1], level[0]))


def planar_distance(pose: np.ndarray | tuple[float, ...], goal: np.ndarray | tuple[float, ...]) -> float:
    """Distance in the table plane, m."""
    return float(np.hypot(pose[0] - goal[0], pose[1] - goal[1]))


def in_frame(pose: np.ndarray, frame: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """Where `pose` f32[7] is in an upright frame (pose of 7 numbers), f64[3], m."""
    yaw, (dx, dy, dz) = yaw_of(frame), (float(a) - float(b) for a, b in zip(pose[:3], frame[:3], strict=True))
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([c * dx + s * dy, c * dy - s * dx, dz])


def closeness(distance: float, scale: float) -> float:
    """1 at distance 0, falling linearly to 0 at `scale` (same unit) and beyond."""
    return float(np.clip(1.0 - distance / scale, 0.0, 1.0))


def reach(world: DualArmWorld, index: int) -> float:
    """Distance from object `index` to the nearer tool, m."""
    return float(np.min(np.linalg.norm(world.tool_pose()[:, :3] - world.object_pose()[index, :3], axis=1)))


def lifted_level(pose: np.ndarray, held: np.ndarray) -> bool:
    """Whether both arms hold an object (`held` bool[2], see `holding`) that is tilted less than 10 degrees."""
    return bool(held.all()) and tilt(pose) < MAX_TILT


class Ladder:
    """Progress that never falls: the furthest rung reached, plus how far towards the next."""

    def __init__(self, rungs: int) -> None:
        self._rungs = rungs
        self._best = 0.0

    def climb(self, rung: int, towards_next: float = 0.0) -> float:
        """Progress in [0, 1) for having reached `rung` of `rungs` (0 = nothing yet)."""
        value = min((rung + 0.99 * float(np.clip(towards_next, 0.0, 1.0))) / (self._rungs + 1), 0.999)
        self._best = max(self._best, value)
        return self._best
