"""Points in an object's frame and in the world's: poses are position and wxyz, m."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rotation(pose: Sequence[float] | np.ndarray) -> np.ndarray:
    """f64[3, 3]: the axes of the frame at `pose` [7], as columns, in the world."""
    w, x, y, z = (float(v) for v in pose[3:])
    return np.array(
        [
            [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)],
            [2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)],
            [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)],
        ]
    )


def to_world(pose: Sequence[float] | np.ndarray, point: Sequence[float] | np.ndarray) -> np.ndarray:
    """A point [3] of the frame at `pose` [7], in the world, f64[3]."""
    return np.asarray(rotation(pose) @ np.asarray(point, dtype=np.float64) + np.asarray(pose[:3], dtype=np.float64))


def to_local(pose: Sequence[float] | np.ndarray, point: Sequence[float] | np.ndarray) -> np.ndarray:
    """A point [3] of the world, in the frame at `pose` [7], f64[3]."""
    away = np.asarray(point, dtype=np.float64) - np.asarray(pose[:3], dtype=np.float64)
    return np.asarray(rotation(pose).T @ away)


def facing(side: int, x: float, y: float) -> tuple[float, float]:
    """A place on the table as the left arm (`side` +1) sees it, or the right one (-1): half a turn apart."""
    return side * x, side * y


def heading(side: int, yaw: float = 0.0) -> float:
    """`yaw` (rad) as the left arm (`side` +1) sees it, or the right one (-1)."""
    return yaw if side > 0 else yaw + np.pi
