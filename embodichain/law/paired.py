"""Two success rates on the same evaluation seeds: what differs, and how surely.

McNemar's exact test and a paired bootstrap where single outcomes are known; Newcombe's interval where only counts are.

Sources: Q. McNemar, Psychometrika 12 (1947), 153-157; R. G. Newcombe, Statistics in Medicine 17 (1998), 873-890, method
10; E. B. Wilson, JASA 22 (1927), 209-212.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from embodichain.contracts import wilson_interval
from embodichain.law.bootstrap import interval
from embodichain.law.curves import Array


@dataclass(frozen=True, kw_only=True)
class RateDifference:
    """Rate a minus rate b.

    Attributes:
        difference, low, high: in [-1, 1].
        method: `paired bootstrap`, `Newcombe` or `Welch over runs`.
        better, worse: outcomes solved by a alone, and by b alone; None without single outcomes.
        p: McNemar's exact p-value over those, for one pair of runs; for more, by the bootstrap; None without outcomes.
    """

    difference: float
    low: float
    high: float
    method: str
    better: int | None = None
    worse: int | None = None
    p: float | None = None


def newcombe(a: tuple[int, int], b: tuple[int, int], alpha: float = 0.05) -> tuple[float, float]:
    """Interval of p_a - p_b from (k, n) of independent samples: from Wilson's intervals of either rate."""
    z = float(stats.norm.ppf(1 - alpha / 2))
    p_a, p_b = a[0] / a[1], b[0] / b[1]
    low_a, high_a = wilson_interval(*a, z)
    low_b, high_b = wilson_interval(*b, z)
    difference = p_a - p_b
    return (
        difference - float(np.hypot(p_a - low_a, high_b - p_b)),
        difference + float(np.hypot(high_a - p_a, p_b - low_b)),
    )


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p-value: of the discordant outcomes, each falls on either side with probability one half."""
    return float(stats.binomtest(better, better + worse, 0.5).pvalue) if better + worse else 1.0


def from_counts(a: Sequence[tuple[int, int]], b: Sequence[tuple[int, int]], alpha: float) -> RateDifference:
    """From (k, n) of each run: Newcombe's interval of the pooled counts.

    With two or more runs on either side the wider one of that and of Welch's interval over the runs' rates, which also
    holds what training seeds differ by.
    """
    pooled = [(sum(k for k, _ in side), sum(n for _, n in side)) for side in (a, b)]
    difference = pooled[0][0] / pooled[0][1] - pooled[1][0] / pooled[1][1]
    (low, high), method = newcombe(pooled[0], pooled[1], alpha), "Newcombe"
    if min(len(a), len(b)) > 1:
        rates = [np.array([k / n for k, n in side]) for side in (a, b)]
        half = _welch(rates[0], rates[1], alpha)
        if 2 * half > high - low:
            middle = float(rates[0].mean() - rates[1].mean())
            low, high, method = middle - half, middle + half, "Welch over runs"
    return RateDifference(difference=difference, low=max(-1.0, low), high=min(1.0, high), method=method)


def _welch(a: Array, b: Array, alpha: float) -> float:
    """Half width of Welch's interval of a difference of means; 0 if neither side varies."""
    parts = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    if parts.sum() <= 0:
        return 0.0
    free = parts.sum() ** 2 / (parts**2 / [len(a) - 1, len(b) - 1]).sum()
    return float(stats.t.ppf(1 - alpha / 2, free) * np.sqrt(parts.sum()))


def from_outcomes(a: Array, b: Array, alpha: float, resamples: int, rng: np.random.Generator) -> RateDifference:
    """From f64[runs, seeds] of 0 and 1 on the same evaluation seeds, runs paired or not.

    Training runs of either side are resampled as clusters, evaluation seeds jointly for both sides. With one run on
    either side training noise cannot be seen: interval and McNemar's test then speak of these two checkpoints alone.
    """
    difference = float(a.mean() - b.mean())
    seeds = rng.multinomial(a.shape[1], np.full(a.shape[1], 1.0 / a.shape[1]), size=resamples) / a.shape[1]
    drawn = _resampled(a, seeds, rng) - _resampled(b, seeds, rng)
    low, high = interval(drawn, alpha)
    method = "paired bootstrap"
    if high == low:  # nothing differs, in no resample: the counts still leave room
        counts = [(int(side.sum()), side.size) for side in (a, b)]
        (low, high), method = newcombe(counts[0], counts[1], alpha), "Newcombe"
    better = worse = None
    if len(a) == len(b) == 1:
        better, worse = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
        p = mcnemar(better, worse)
    else:
        tail = min((drawn <= 0).mean(), (drawn >= 0).mean())
        p = float(min(1.0, 2 * max(tail, 1 / (1 + resamples))))
    return RateDifference(difference=difference, low=low, high=high, method=method, better=better, worse=worse, p=p)


def _resampled(outcomes: Array, seeds: Array, rng: np.random.Generator) -> Array:
    """f64[R]: mean rate under resampled runs (m - 1 of m, rescaled; see `law.bootstrap`) and evaluation seeds."""
    m = len(outcomes)
    rates = seeds @ outcomes.T
    if m == 1:
        return np.asarray(rates[:, 0])
    runs = rng.multinomial(m - 1, np.full(m, 1.0 / m), size=len(seeds)) / (m - 1)
    return np.asarray((rates * runs).sum(axis=1))


@dataclass(frozen=True, kw_only=True)
class RatioOfErrors:
    """How many times as large one side's errors are, with Student's interval over the pairs (of log errors).

    Attributes:
        ratio, low, high: geometric mean and interval; infinite for one pair. `p`: of Student's paired test; None then.
        pairs: training seeds that both sides have.
    """

    ratio: float
    low: float
    high: float
    p: float | None
    pairs: int


def ratio_of_errors(a: Mapping[int, float], b: Mapping[int, float], alpha: float) -> RatioOfErrors | None:
    """Errors (> 0) by training seed, `a` over `b`; None where no seed is in both."""
    seeds = sorted(set(a) & set(b))
    if not seeds:
        return None
    logs = np.log([a[seed] / b[seed] for seed in seeds])
    mean, half = student(logs, alpha)
    p = None
    if len(seeds) > 1:
        p = float(stats.ttest_1samp(logs, 0.0).pvalue) if logs.std() else float(mean == 0)
    low, high = (0.0, math.inf) if math.isinf(half) else (math.exp(mean - half), math.exp(mean + half))
    return RatioOfErrors(ratio=math.exp(mean), low=low, high=high, p=p, pairs=len(seeds))


def geometric_mean(errors: Sequence[float]) -> float:
    """Of errors > 0; at least one."""
    return float(np.exp(np.mean(np.log(errors))))


def student(values: Array, alpha: float) -> tuple[float, float]:
    """Mean of paired differences and half the width of Student's interval; infinite for one pair."""
    n, half = len(values), math.inf
    if n > 1:
        half = float(stats.t.ppf(1 - alpha / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return float(values.mean()), half
