"""A law must predict runs that it has not seen: fits on half of a group's runs, checked on the other half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from embodichain.law.compare import data_of
from embodichain.law.curves import Array, curves_for
from embodichain.law.design import Point
from embodichain.law.fit import fit, prediction_sd

SPLITS = 40


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """The check's result.

    Attributes:
        coverage: share of held-out runs inside their prediction interval, over all splits.
        splits: random halves, balanced within levels. `nominal`: what the coverage should be.
        low, high: of the first split, per point: the interval in the metric's unit (NaN where it was fitted).
        possible: False if half of the runs cannot carry the curve; then nothing was checked.
    """

    coverage: float
    splits: int
    nominal: float
    low: Array
    high: Array
    possible: bool


def holdout(points: Sequence[Point], kind: str, name: str, alpha: float, rng: np.random.Generator) -> Holdout:
    """Fit on random halves, predict the other halves' runs.

    The interval holds what one new run may differ by: the curve's own uncertainty and the noise between runs, both
    estimated from the fitted half alone (Student's t). `name`: of the curve, `none`, `plain` or `hinge`.
    """
    x, data = data_of(points, kind)
    level = np.array([point.level for point in points])
    curve = curves_for(kind, x, data.y)[name]
    halves = np.array([_half(level, rng) for _ in range(SPLITS)])
    fitted = halves.sum(axis=1)
    nothing = np.full(data.n, np.nan)
    levels_seen = min(len(np.unique(level[half > 0])) for half in halves)
    if fitted.min() < curve.size + 2 or levels_seen < curve.size:
        return Holdout(coverage=float("nan"), splits=0, nominal=1 - alpha, low=nothing, high=nothing, possible=False)
    theta, _ = fit(curve, data, halves)
    value = curve.value(theta)
    information = np.ones_like(value) if kind == "error" else data.trials / np.clip(value * (1 - value), 1e-4, None)
    free = np.maximum(1, fitted - curve.size)
    noise = (halves * information * (data.y - value) ** 2).sum(axis=1) / free
    if kind == "success":
        noise = np.maximum(1.0, noise)
    sd = np.stack(
        [prediction_sd(curve, data, theta[i : i + 1], halves[i : i + 1], float(noise[i]))[0] for i in range(SPLITS)]
    )
    reach = stats.t.ppf(1 - alpha / 2, free)[:, None] * sd
    away = halves == 0
    inside = np.abs(data.y - value) <= reach
    low, high = value[0] - reach[0], value[0] + reach[0]
    low, high = (np.exp(low), np.exp(high)) if kind == "error" else (np.clip(low, 0, 1), np.clip(high, 0, 1))
    return Holdout(
        coverage=float(inside[away].mean()),
        splits=SPLITS,
        nominal=1 - alpha,
        low=np.where(away[0], low, np.nan),
        high=np.where(away[0], high, np.nan),
        possible=True,
    )


def _half(level: np.ndarray, rng: np.random.Generator) -> Array:
    """f64[n] of 0 and 1: half of each level's runs, the odd ones alternately to either side."""
    chosen = np.zeros(len(level))
    spare = int(rng.integers(2))
    for each in np.unique(level):
        members = rng.permutation(np.flatnonzero(level == each))
        size, odd = divmod(len(members), 2)
        take = size + (odd and spare)
        spare = 1 - spare if odd else spare
        chosen[members[:take]] = 1.0
    return chosen
