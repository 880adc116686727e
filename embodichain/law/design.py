"""From runs to points of one curve: groups of equal compute and size, levels of E, matched pairs.

Owns: what is compared with what. Two views of equal compute: `steps`, every run read off after the same number of
gradient steps; and `core_seconds`, every run read off after the same core-seconds, generation included, between two of
its readings (linear in log error over log core-seconds).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embodichain.law.admit import has_metric, reading_at, success_counts
from embodichain.law.cell import Cell, Reading
from embodichain.law.curves import Array
from embodichain.law.plan import Plan

BUDGET_TOLERANCE = 0.05  # of steps or core-seconds, within which budgets are equal
STREAM, MATCHED = "stream", "matched_d"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run at one budget.

    Attributes:
        cell: the run. `reading`: what it is read off.
        level: index of its level of E within the group, from the lowest.
        k, n: success over the plan's split; (0, 0) if it was not scored.
    """

    cell: Cell
    reading: Reading
    level: int = 0
    k: int = 0
    n: int = 0

    @property
    def x(self) -> float:
        """Log E."""
        return math.log(self.reading.throughput)

    @property
    def y(self) -> float:
        """Log held-out error; NaN if it was not measured."""
        return math.log(self.reading.error) if self.reading.error else math.nan


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one (C, P): equal compute and parameters, E as the variable.

    Attributes:
        view: `steps` or `core_seconds`. `budget`: of that. `share`: of the runs' own budgets, for `steps`.
        model, parameters: of the networks.
        points: of the stream arm, by level. `matched`: of the matched-D arm.
        missing: runs that could not be read off here, with the reason.
    """

    view: str
    budget: float
    share: float
    model: str
    parameters: int | None
    points: tuple[Point, ...]
    matched: tuple[Point, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def size_label(self) -> str:
        """The network in words."""
        return f"{self.model or 'model'} {human(self.parameters)}" if self.parameters else self.model or "model"

    @property
    def label(self) -> str:
        """The group in words."""
        unit = "steps" if self.view == "steps" else "core-seconds"
        return f"{self.size_label}, {human(self.budget)} {unit}"

    @property
    def levels(self) -> int:
        """How many levels of E."""
        return len({point.level for point in self.points})

    def level_of(self) -> np.ndarray:
        """i64[n], the level of each point."""
        return np.array([point.level for point in self.points])

    def level_throughput(self) -> Array:
        """f64[levels], geometric mean of E in each."""
        level, x = self.level_of(), np.array([point.x for point in self.points])
        return np.exp(np.array([x[level == each].mean() for each in range(self.levels)]))


def groups_at_equal_steps(cells: Sequence[Cell], plan: Plan) -> list[Group]:
    """One group per (share, steps, model, P) among the stream and matched-D arms."""
    groups = []
    for share in sorted(plan.shares):
        points = []
        for cell in cells:
            reading = reading_at(cell, share)
            if cell.arm in (STREAM, MATCHED) and reading is not None and has_metric(reading, plan.metric, plan.split):
                points.append(_point(cell, reading, plan))
        for model, parameters in sorted({_size(point.cell) for point in points}, key=str):
            mine = [point for point in points if _size(point.cell) == (model, parameters)]
            for cluster in clusters([point.reading.step for point in mine], BUDGET_TOLERANCE):
                chosen = [mine[i] for i in cluster]
                budget = float(np.median([point.reading.step for point in chosen]))
                group = Group(
                    view="steps", budget=budget, share=share, model=model, parameters=parameters, points=tuple(chosen)
                )
                groups.append(_with_levels(group, plan))
    return [group for group in groups if group.points]


def groups_at_equal_core_seconds(cells: Sequence[Cell], plan: Plan) -> list[Group]:
    """One group per (share, model, P) of the stream arm: the budget is that share of the least that any run spent.

    Success is read off only at a checkpoint, so these groups carry held-out error alone.
    """
    groups = []
    stream = [cell for cell in cells if cell.arm == STREAM]
    for model, parameters in sorted({_size(cell) for cell in stream}, key=str):
        mine = [cell for cell in stream if _size(cell) == (model, parameters)]
        known = [cell for cell in mine if cell.final.core_seconds]
        if not known:
            continue
        least = min(float(cell.final.core_seconds or 0) for cell in known)
        for share in sorted(plan.shares):
            points, missing = [], [f"{cell.path}: core-seconds not known" for cell in mine if cell not in known]
            for cell in known:
                reading = _interpolated(cell, share * least)
                if reading is None:
                    missing.append(f"{cell.path}: no readings on both sides of {share * least:.0f} core-seconds")
                else:
                    points.append(Point(cell=cell, reading=reading))
            group = Group(
                view="core_seconds",
                budget=share * least,
                share=share,
                model=model,
                parameters=parameters,
                points=tuple(points),
                missing=tuple(missing),
            )
            groups.append(_with_levels(group, plan))
    return groups


def matched_pairs(group: Group, plan: Plan) -> list[tuple[Point, Point]]:
    """(stream, matched-D) of equal seed, steps and D: both used as many unique pairs, up to the level tolerance."""
    pairs = []
    free = list(group.matched)
    for point in group.points:
        for other in free:
            near = abs(math.log(point.reading.unique_pairs / other.reading.unique_pairs))
            if other.cell.seed == point.cell.seed and near < math.log1p(plan.level_tolerance):
                pairs.append((point, other))
                free.remove(other)
                break
    return pairs


def clusters(values: Sequence[float], tolerance: float) -> list[list[int]]:
    """Indices of values in groups, each within `tolerance` (a share) of the next lower one, in ascending order."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    result: list[list[int]] = []
    for i in order:
        if result and values[i] <= values[result[-1][-1]] * (1 + tolerance):
            result[-1].append(i)
        else:
            result.append([i])
    return result


def human(number: float | None) -> str:
    """`1234567` -> `1.2M`."""
    if number is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def _point(cell: Cell, reading: Reading, plan: Plan) -> Point:
    k, n = success_counts(reading, plan.split)
    return Point(cell=cell, reading=reading, k=k, n=n)


def _size(cell: Cell) -> tuple[str, int | None]:
    return cell.model, cell.parameters


def _with_levels(group: Group, plan: Plan) -> Group:
    stream = [point for point in group.points if point.cell.arm == STREAM]
    levels = clusters([point.reading.throughput for point in stream], plan.level_tolerance)
    points = [replace(stream[i], level=level) for level, members in enumerate(levels) for i in members]
    matched = tuple(point for point in group.points if point.cell.arm == MATCHED)
    return replace(group, points=tuple(sorted(points, key=_order)), matched=matched)


def _order(point: Point) -> tuple[int, int, float]:
    return point.level, point.cell.seed, point.x


def _interpolated(cell: Cell, budget: float) -> Reading | None:
    """The cell's error after `budget` core-seconds; None without readings around it."""
    readings = [r for r in cell.readings if r.core_seconds and r.error and r.error > 0 and r.step > 0]
    for reading in readings:
        if abs(math.log(float(reading.core_seconds or 1) / budget)) < 1e-9:
            return reading
    before = [r for r in readings if float(r.core_seconds or 0) < budget]
    after = [r for r in readings if float(r.core_seconds or 0) > budget]
    if not before or not after:
        near = [r for r in readings if abs(float(r.core_seconds or 0) / budget - 1) <= BUDGET_TOLERANCE]
        return near[0] if near else None
    low, high = before[-1], after[0]
    part = math.log(budget / (low.core_seconds or 1)) / math.log((high.core_seconds or 1) / (low.core_seconds or 1))

    def between(a: float, b: float) -> float:
        return math.exp((1 - part) * math.log(a) + part * math.log(b))

    return Reading(
        step=round(between(low.step, high.step)),
        share=between(low.share, high.share),
        unique_pairs=between(low.unique_pairs, high.unique_pairs),
        core_seconds=budget,
        error=between(low.error or 1, high.error or 1),
    )
