"""Is there any effect of E at all? An exact test, before a curve is fitted.

Under "no effect" the runs of one training seed are exchangeable between the levels of E, so the distribution of any
statistic is known by permuting them, whatever the noise looks like. The statistic is the share of variance that a
monotone improvement explains (isotonic regression), which sees a power law and a threshold alike.

Source: Barlow, Bartholomew, Bremner and Brunk, "Statistical Inference under Order Restrictions" (1972), chapter 3
(the E-bar-squared statistic, here with a permutation reference); Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9
(2010), for p = (1 + b) / (1 + N).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodichain.law.curves import Array


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What the test says.

    Attributes:
        p: that so much improvement arises if E does nothing.
        p_worse: the same for deterioration.
        explained: share of variance that a monotone improvement explains, in [0, 1].
        change: mean of the highest level minus mean of the lowest, in the metric's scale (log error, or rate).
        detectable: change between two levels that would be found in 80 % of sweeps like this one, at this noise.
        blocked: permuted within training seeds (every seed has runs at several levels), or over all runs.
    """

    p: float
    p_worse: float
    explained: float
    change: float
    detectable: float
    blocked: bool


def effect_of_throughput(
    score: Array, level: np.ndarray, seed: np.ndarray, permutations: int, rng: np.random.Generator
) -> Effect:
    """Test for improvement over the levels.

    Args:
        score: f64[n], larger is better (minus log error, or a success rate).
        level: i64[n], from 0, ordered by E.
        seed: i64[n], training seed of each run.
        permutations: how many.
        rng: for them.
    """
    blocks = [np.flatnonzero(seed == each) for each in np.unique(seed)]
    blocked = all(len(block) > 1 for block in blocks)
    if not blocked:
        blocks = [np.arange(len(score))]
    aligned = score.astype(float).copy()
    for block in blocks:
        aligned[block] -= aligned[block].mean()
    shuffled = np.tile(aligned, (permutations, 1))
    for block in blocks:
        shuffled[:, block] = rng.permuted(shuffled[:, block], axis=1)
    total = float((aligned**2).sum())
    if total <= 0:
        return Effect(p=1.0, p_worse=1.0, explained=0.0, change=0.0, detectable=0.0, blocked=blocked)
    p = {}
    for sign in (1, -1):
        observed = monotone_variance(sign * aligned[None], level)[0]
        null = monotone_variance(sign * shuffled, level)
        p[sign] = float((1 + np.sum(null >= observed - 1e-12 * total)) / (1 + permutations))
    top, bottom = score[level == level.max()], score[level == 0]
    return Effect(
        p=p[1],
        p_worse=p[-1],
        explained=float(monotone_variance(aligned[None], level)[0] / total),
        change=float(top.mean() - bottom.mean()),
        detectable=detectable_change(score, level),
        blocked=blocked,
    )


def monotone_variance(scores: Array, level: np.ndarray) -> Array:
    """f64[N]: variation of the level means' closest non-decreasing sequence around the mean, for f64[N, n] scores.

    The closest non-decreasing sequence is, at j, the largest over i <= j of the smallest over k >= j of the mean of
    levels i to k (Barlow et al., theorem 1.4: the max-min formula).
    """
    levels = int(level.max()) + 1
    member = (level[:, None] == np.arange(levels)).astype(float)
    count = member.sum(axis=0)
    sums = np.concatenate([np.zeros((len(scores), 1)), np.cumsum(scores @ member, axis=1)], axis=1)
    counts = np.concatenate([[0.0], np.cumsum(count)])
    fitted = np.empty((len(scores), levels))
    for j in range(levels):
        best = np.full(len(scores), -np.inf)
        for i in range(j + 1):
            means = (sums[:, j + 1 :] - sums[:, i : i + 1]) / (counts[j + 1 :] - counts[i])
            best = np.maximum(best, means.min(axis=1))
        fitted[:, j] = best
    centre = scores.mean(axis=1, keepdims=True)
    return np.asarray(((fitted - centre) ** 2) @ count)


def detectable_change(score: Array, level: np.ndarray) -> float:
    """Smallest change between two levels seen in 80 % of sweeps by a two-sided t-test at 5 %; NaN without repeats."""
    from scipy import stats

    counts = np.bincount(level)
    free = len(score) - len(counts)
    if free < 1:
        return float("nan")
    within = sum(
        float(((score[level == each] - score[level == each].mean()) ** 2).sum()) for each in range(len(counts))
    )
    half = float(stats.t.ppf(0.975, free) + stats.t.ppf(0.8, free))
    return half * float(np.sqrt(within / free * 2.0 / np.median(counts)))


def holm(p: list[float]) -> list[float]:
    """Adjusted p-values over a family of tests (Holm, Scand. J. Stat. 6 (1979)): valid however they depend."""
    adjusted = [0.0] * len(p)
    running = 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = running
    return adjusted
