"""Resampling: training runs as clusters within a level of E, and evaluation seeds, common to all runs.

Owns: the random weights and resampled rates. Every interval of the report comes from refitting under them.

Runs: within each level, m - 1 of the m runs are drawn with replacement and weighted by m / (m - 1). The variance of a
level's mean is then unbiased; drawing m of m would make it (m - 1) / m of what it is, a third too small at three seeds
(Rao and Wu, JASA 83 (1988), 231-241). A level with one run alone cannot be resampled: then runs are drawn over all
levels. Evaluation seeds: where single outcomes are known, the same resampled seeds are applied to every run, since all
runs were scored on the same ones (a crossed, or pigeonhole, bootstrap, which is conservative: Owen, Ann. Appl. Stat. 1
(2007), 386-411). Where only counts are known, the scatter between runs already holds the evaluation's part of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embodichain.law.curves import Array
from embodichain.law.design import Point
from embodichain.law.noise import outcome_matrix


def run_weights(level: np.ndarray, resamples: int, rng: np.random.Generator) -> Array:
    """f64[R, n]: weights of the runs; they sum to the number of runs of each level."""
    weights = np.empty((resamples, len(level)))
    counts = np.bincount(level)
    if counts[counts > 0].min() < 2:
        return _drawn(len(level), resamples, rng)
    for each in np.flatnonzero(counts):
        members = np.flatnonzero(level == each)
        weights[:, members] = _drawn(len(members), resamples, rng)
    return weights


def resampled_rates(points: Sequence[Point], split: str, resamples: int, rng: np.random.Generator) -> Array | None:
    """f64[R, n]: success rates under resampled evaluation seeds, within each task; None if only counts are known."""
    found = outcome_matrix(points, split)
    if found is None:
        return None
    outcomes, task = found
    draws = np.empty((resamples, outcomes.shape[1]))
    for each in np.unique(task):
        members = np.flatnonzero(task == each)
        size = len(members)
        draws[:, members] = rng.multinomial(size, np.full(size, 1.0 / size), size=resamples)
    return np.asarray(draws @ outcomes.T / outcomes.shape[1])


def interval(values: Array, alpha: float) -> tuple[float, float]:
    """Percentile interval of coverage 1 - alpha over finite values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def _drawn(m: int, resamples: int, rng: np.random.Generator) -> Array:
    if m < 2:
        return np.ones((resamples, m))
    return np.asarray(rng.multinomial(m - 1, np.full(m, 1.0 / m), size=resamples) * (m / (m - 1)))
