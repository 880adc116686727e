"""Which demonstration a scene is made from: the one whose scene looks most like it.

MimicGen's selection by the nearest object (arXiv 2310.17596, appendix on source selection), over all objects and
goals at once. A demonstration from the other side of the table would need the other arm's reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from tasks.registry import get_task
from tasks.sampling import draw_scene

YAW_SCALE = 0.2  # m per unit of a quaternion's difference: a turn counts as what it moves a point 10 cm away


def layout(task: str, seed: int, domain: str) -> np.ndarray:
    """Where everything is in a scene: objects, then goals, f64[N * 7] in which distances are metres."""
    spec = draw_scene(get_task(task), seed, domain).spec
    poses = np.array([item.pose for item in spec.objects] + [item.pose for item in spec.goals])
    turns = poses[:, 3:] * np.where(poses[:, 3:4] < 0.0, -YAW_SCALE, YAW_SCALE)
    return np.concatenate([poses[:, :3], turns], axis=1).ravel()


_parent_layout = cache(layout)  # parents are few and come again; other scenes do not


def nearest_parents(task: str, seed: int, domain: str, parents: Sequence[int]) -> list[int]:
    """The seeds `parents`, the one whose scene is nearest to that of `seed` first."""
    here = layout(task, seed, domain)
    return sorted(parents, key=lambda parent: float(np.linalg.norm(_parent_layout(task, parent, domain) - here)))
