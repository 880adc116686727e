"""Throughput, or just more data? The controls between "performance grows with E" and "because of E".

At a fixed number of steps S, unique data D = E S: E and D are one variable, and no curve can tell them apart. Two
designs can. The *matched-D arm* trains on the same number of unique pairs for as many steps, but has them all from the
start; what is left between the arms is that the experience was fresh. *Crossing* E with S gives equal D at different E
(with fewer steps where E is higher); then log E and log D are separate columns, unless they are collinear, and then
nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embodichain.law.bootstrap import interval, run_weights
from embodichain.law.compare import data_of
from embodichain.law.curves import Array, curves_for
from embodichain.law.design import Group, Point, human, matched_pairs
from embodichain.law.fit import Data, aicc, fit
from embodichain.law.paired import student
from embodichain.law.plan import Plan

FLIPS = 4000
COLLINEAR = 1e-6  # singular value of the standardised design, relative to the largest, below which it has no full rank


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean paired difference, stream minus matched-D, in log error or in rate.

    Attributes:
        mean, low, high: with its Student interval over the pairs.
        p: by random sign flips. `pairs`: how many.
        label: of what.
    """

    mean: float
    low: float
    high: float
    p: float
    pairs: int
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class MatchedD:
    """The matched-D comparison.

    Attributes:
        overall: over the pairs at the end of the runs. Read-offs before pair one run of the matched-D arm with several
            of the stream, which are not independent then.
        by_level: one per level of E and group, at the end of the runs.
        unmatched: runs of the matched-D arm without a stream run of equal D, steps and seed.
        finding: `fresh` (stream better), `data` (as good or better with all data at once), `unresolved`.
    """

    overall: Difference
    by_level: tuple[Difference, ...]
    unmatched: int
    finding: str


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Whether E and D are separate variables in the stream arm, and which of them explains more.

    Attributes:
        rank: of the design (1 per network size, log E, log D). `columns`: of full rank.
        vif: variance inflation of log E beside log D.
        collinear: no statement is possible.
        at_equal_data: slope of the metric over log E at equal D, with its interval; NaN if collinear.
        aicc_throughput, aicc_data: of one curve over E, or over D, through all budgets.
        finding: `fresh`, `data`, `unresolved` or `collinear`.
    """

    rank: int
    columns: int
    vif: float
    collinear: bool
    at_equal_data: tuple[float, float, float]
    aicc_throughput: float
    aicc_data: float
    finding: str


def matched_comparison(groups: Sequence[Group], metric: str, plan: Plan, rng: np.random.Generator) -> MatchedD | None:
    """Compare the arms in pairs; None if there is no pair at the end of the runs."""
    final: list[float] = []
    levels: list[Difference] = []
    last = max((group.share for group in groups), default=1.0)
    used: set[str] = set()
    for group in sorted(groups, key=lambda group: (group.parameters or 0, group.budget)):
        found: dict[int, list[float]] = {}
        for stream, matched in matched_pairs(group, plan):
            difference = _value(stream, metric) - _value(matched, metric)
            if math.isfinite(difference):
                found.setdefault(stream.level, []).append(difference)
                used.add(matched.cell.path)
        throughput = group.level_throughput() if group.points else np.array([])
        for level, differences in sorted(found.items()) if group.share == last else ():
            final += differences
            label = f"{group.label}, E = {human(float(throughput[level]))}"
            levels.append(paired_difference(np.array(differences), plan.alpha, rng, label))
    if not final:
        return None
    overall = paired_difference(np.array(final), plan.alpha, rng, "all pairs")
    lonely = {point.cell.path for group in groups for point in group.matched} - used
    return MatchedD(
        overall=overall,
        by_level=tuple(levels),
        unmatched=len(lonely),
        finding=_finding(overall, metric, plan.equivalence),
    )


def paired_difference(values: Array, alpha: float, rng: np.random.Generator, label: str = "") -> Difference:
    """Mean of paired differences with Student's interval, and a sign-flip test (exact up to its random flips)."""
    n = len(values)
    mean, half = student(values, alpha)
    signs = rng.choice([-1.0, 1.0], size=(FLIPS, n))
    p = (1 + int((np.abs(signs @ values / n) >= abs(mean) - 1e-12).sum())) / (1 + FLIPS)
    return Difference(mean=mean, low=mean - half, high=mean + half, p=float(p), pairs=n, label=label)


def crossing(points: Sequence[Point], metric: str, plan: Plan, rng: np.random.Generator) -> Crossing:
    """Weigh E against D in the stream arm over all steps at which runs are read off; a run's readings go together."""
    points = [p for p in points if math.isfinite(_value(p, metric))]
    size = np.array([str((p.cell.model, p.cell.parameters)) for p in points])
    log_e, log_d = np.array([p.x for p in points]), np.array([math.log(p.reading.unique_pairs) for p in points])
    y = np.array([_value(p, metric) for p in points])
    sizes = np.unique(size)
    dummies = (size[:, None] == sizes).astype(float)
    rank, vif = _rank_and_vif(dummies, log_e, log_d)
    columns = len(sizes) + 2
    nothing = (float("nan"),) * 3
    if rank < columns or vif > plan.max_vif:
        return Crossing(
            rank=rank,
            columns=columns,
            vif=vif,
            collinear=True,
            at_equal_data=nothing,
            aicc_throughput=float("nan"),
            aicc_data=float("nan"),
            finding="collinear",
        )
    design = np.column_stack([dummies, log_e, log_d])
    last = {p.cell.path: p for p in sorted(points, key=lambda p: p.reading.step)}
    alike = [str((p.cell.values, p.cell.model, p.cell.parameters, p.level, p.reading.step)) for p in last.values()]
    weights = run_weights(np.unique(alike, return_inverse=True)[1], plan.resamples, rng)
    number = {path: i for i, path in enumerate(last)}
    weights = weights[:, [number[p.cell.path] for p in points]]
    slope = _slopes(design, y, np.ones((1, len(y))))[0]
    low, high = interval(_slopes(design, y, weights), plan.alpha)
    by_e, by_d = (_joint_aicc(points, metric, sizes, size, x) for x in (log_e, log_d))
    span = float(log_e.max() - log_e.min())
    over_range = Difference(mean=slope * span, low=low * span, high=high * span, p=float("nan"), pairs=len(points))
    finding = _finding(over_range, metric, plan.equivalence)
    # AICc takes points for independent, which readings of one run are not.
    if finding == "unresolved" and len(last) == len(points) and by_d + plan.threshold_aicc < by_e:
        finding = "data"
    return Crossing(
        rank=rank,
        columns=columns,
        vif=vif,
        collinear=False,
        at_equal_data=(float(slope), low, high),
        aicc_throughput=by_e,
        aicc_data=by_d,
        finding=finding,
    )


def _value(point: Point, metric: str) -> float:
    if metric == "error":
        return point.y
    return point.k / point.n if point.n else float("nan")


def _finding(difference: Difference, metric: str, equivalence: float) -> str:
    """`fresh`, `data` or `unresolved` from the interval of stream minus matched-D."""
    low, high = difference.low, difference.high
    if metric == "error":  # less is better: turn it around
        low, high = -high, -low
    if low > 0:
        return "fresh"
    if high < 0 or (low > -equivalence and high < equivalence):
        return "data"
    return "unresolved"


def _rank_and_vif(dummies: Array, log_e: Array, log_d: Array) -> tuple[int, float]:
    """Rank of the design, and 1 / (1 - r^2) of log E on log D within network sizes."""

    def within(x: Array) -> Array:
        return np.asarray(x - dummies @ ((dummies.T @ x) / dummies.sum(axis=0)))

    e, d = within(log_e), within(log_d)
    both = np.column_stack([e / (np.linalg.norm(e) or 1.0), d / (np.linalg.norm(d) or 1.0)])
    singular = np.linalg.svd(both, compute_uv=False)
    rank = dummies.shape[1] + int((singular > COLLINEAR * max(1.0, singular[0])).sum())
    unexplained = 1.0 - float(both[:, 0] @ both[:, 1]) ** 2
    return rank, float("inf") if unexplained < COLLINEAR else 1.0 / unexplained


def _slopes(design: Array, y: Array, weights: Array) -> Array:
    """f64[B]: weighted least-squares coefficient of log E, the last but one column."""
    normal = np.einsum("np,bn,nq->bpq", design, weights, design)
    right = np.einsum("np,bn->bp", design, weights * y)
    return np.asarray(np.einsum("bpq,bq->bp", np.linalg.pinv(normal, hermitian=True), right)[:, -2])


def _joint_aicc(points: Sequence[Point], metric: str, sizes: np.ndarray, size: np.ndarray, x: Array) -> float:
    """AICc of one curve per network size over `x`, through all step budgets."""
    total = 0.0
    _, data = data_of(points, metric)
    for each in sizes:
        mine = size == each
        part = Data(kind=metric, y=data.y[mine], trials=data.trials[mine])
        curve = curves_for(metric, x[mine], part.y)["plain"]
        total += aicc(curve, part, fit(curve, part, np.ones((1, part.n)))[0][0])
    return total
