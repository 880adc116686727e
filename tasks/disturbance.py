"""Disturbances injected while an expert's plan is executed: the reason its labels are corrective.

The robot receives `target + noise`, the episode stores `target`. States then lie a little off the
expert's path while every stored action still leads back to it, so that a cloned policy has seen small
errors and what to do about them (DART, arXiv 1703.09327, with noise correlated in time).
"""

from __future__ import annotations

import numpy as np

from embodichain.contracts import ACTION_DIM, ARMS, Recipe, UnifiedAction
from tasks.domain import parse_domain

JOINT_NOISE_STD = 0.008  # rad
CORRELATION_STEPS = 8.0  # control steps


def execution_noise(recipe: Recipe, steps: int) -> np.ndarray:
    """Noise added to the executed action, f32[steps, A], radians on joints and zero elsewhere.

    An Ornstein-Uhlenbeck process seeded by the recipe; a third of all episodes carry none, so that the
    undisturbed path stays in the data. Without the stage `spatial` there is none. Raises `ValueError` for an unknown
    domain.
    """
    noise = np.zeros((steps, ACTION_DIM), dtype=np.float32)
    rng = np.random.default_rng([recipe.seed, 0xD15])
    if "spatial" not in parse_domain(recipe.domain) or rng.random() < 1 / 3:
        return noise
    scale = JOINT_NOISE_STD * rng.uniform(0.5, 1.5)
    keep = np.exp(-1.0 / CORRELATION_STEPS)
    kick = np.sqrt(1.0 - keep**2)
    draws = rng.standard_normal((steps, len(ARMS), 7))
    value = np.zeros((len(ARMS), 7))
    for t in range(steps):
        value = keep * value + kick * draws[t]
        for arm in range(len(ARMS)):
            noise[t, UnifiedAction.joints(arm)] = scale * value[arm]
    return noise
