"""Where the scatter comes from: training seeds, or the evaluation.

Two runs of one configuration differ because they were trained with other seeds, and because each was scored on a finite
number of evaluation seeds. More evaluation seeds reduce the second part alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embodichain.law.curves import Array
from embodichain.law.design import Point


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviations of one run's score within a level of E.

    Attributes:
        metric: `error` (of log error) or `success` (of the rate).
        total: of the scores themselves. `training`: without the evaluation's part.
        evaluation: the evaluation's part; None where the scores do not tell (held-out error is measured on one fixed
            set, so that its part is common to all runs).
        seed_share: share of the variance between runs that is common to a training seed at every level; None if the
            design does not tell.
        phi: variance of success counts over the binomial's, for n seeds per run; None for errors.
        runs: how many. `method`: how the parts were told apart.
    """

    metric: str
    total: float
    training: float
    evaluation: float | None
    seed_share: float | None
    phi: float | None
    runs: int
    method: str


def error_noise(points: Sequence[Point]) -> Noise:
    """Of log held-out error."""
    y, level = np.array([p.y for p in points]), np.array([p.level for p in points])
    total = _pooled_sd(y, level)
    return Noise(
        metric="error",
        total=total,
        training=total,
        evaluation=None,
        seed_share=_seed_share(y, level, np.array([p.cell.seed for p in points])),
        phi=None,
        runs=len(points),
        method="pooled within levels; the held-out set is fixed, so its sampling error is common to all runs",
    )


def success_noise(points: Sequence[Point], split: str) -> Noise:
    """Of success rates; by analysis of variance over runs x evaluation seeds where single outcomes are known."""
    rate, n = np.array([p.k / p.n for p in points]), np.array([p.n for p in points], dtype=float)
    level = np.array([p.level for p in points])
    total = _pooled_sd(rate, level)
    share = _seed_share(rate, level, np.array([p.cell.seed for p in points]))
    binomial = float(np.mean(rate * (1 - rate) / np.maximum(n - 1, 1)))
    phi = float(total**2 / binomial) if binomial > 0 and np.isfinite(total) else None
    crossed = [_crossed([p for p in points if p.level == each], split) for each in np.unique(level)]
    known = [each for each in crossed if each is not None]
    if known:
        training, evaluation = (float(np.mean([pair[i] for pair in known])) for i in (0, 1))
        method = f"analysis of variance over runs x evaluation seeds, {len(known)} levels"
    else:
        training, evaluation = total**2 - binomial, binomial
        method = "moments: scatter between runs minus the binomial's p(1 - p) / (n - 1)"
    return Noise(
        metric="success",
        total=total,
        training=float(np.sqrt(max(0.0, training))) if np.isfinite(training) else float("nan"),
        evaluation=float(np.sqrt(max(0.0, evaluation))),
        seed_share=share,
        phi=phi,
        runs=len(points),
        method=method,
    )


def outcome_matrix(points: Sequence[Point], split: str) -> tuple[Array, np.ndarray] | None:
    """f64[runs, seeds] of 0 and 1, and i64[seeds], each column's task; None unless all runs have the same seeds."""
    columns: list[tuple[tuple[str, str, str], int]] | None = None
    rows = []
    for point in points:
        outcomes = {
            (row.key, seed): float(solved)
            for row in point.reading.success
            if not split or row.split == split
            for seed, solved in row.outcomes
        }
        if columns is None:
            columns = sorted(outcomes, key=str)
        if not outcomes or sorted(outcomes, key=str) != columns or len(outcomes) != point.n:
            return None
        rows.append([outcomes[column] for column in columns])
    if not rows or columns is None:
        return None
    tasks = {task: i for i, task in enumerate(dict.fromkeys(str(key) for key, _ in columns))}
    return np.array(rows), np.array([tasks[str(key)] for key, _ in columns])


def _crossed(points: Sequence[Point], split: str) -> tuple[float, float] | None:
    """(training, evaluation) variances of one run's rate from a two-way layout without replication.

    Mean squares: runs `MS_r = n var(row means)`, remainder `MS_e` after rows and columns, E[MS_r] = n s_t^2 + s_e^2.
    The evaluation's part of one rate is the variance of its mean over seeds drawn anew, (column + remainder) / n.
    """
    found = outcome_matrix(points, split)
    if found is None or len(points) < 2:
        return None
    outcomes = found[0]
    runs, n = outcomes.shape
    if n < 2:
        return None
    rows, columns, mean = outcomes.mean(axis=1, keepdims=True), outcomes.mean(axis=0, keepdims=True), outcomes.mean()
    remainder = float(((outcomes - rows - columns + mean) ** 2).sum() / ((runs - 1) * (n - 1)))
    between = float(n * ((rows - mean) ** 2).sum() / (runs - 1))
    column = max(0.0, float((runs * ((columns - mean) ** 2).sum() / (n - 1) - remainder) / runs))
    return (between - remainder) / n, (column + remainder) / n


def _pooled_sd(y: Array, level: np.ndarray) -> float:
    levels = np.unique(level)
    free = len(y) - len(levels)
    if free < 1:
        return float("nan")
    return float(np.sqrt(sum(((y[level == each] - y[level == each].mean()) ** 2).sum() for each in levels) / free))


def _seed_share(y: Array, level: np.ndarray, seed: np.ndarray) -> float | None:
    """Of a balanced layout: s_seed^2 / (s_seed^2 + s_run^2), from the mean squares of seeds and of the remainder."""
    levels, seeds = np.unique(level), np.unique(seed)
    if len(y) != len(levels) * len(seeds) or len(levels) < 2 or len(seeds) < 2:
        return None
    table = np.full((len(seeds), len(levels)), np.nan)
    table[np.searchsorted(seeds, seed), np.searchsorted(levels, level)] = y
    if np.isnan(table).any():
        return None
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    run = float((rest**2).sum() / ((len(seeds) - 1) * (len(levels) - 1)))
    between = float(len(levels) * table.mean(axis=1).var(ddof=1))
    common = max(0.0, (between - run) / len(levels))
    return common / (common + run) if common + run > 0 else 0.0
