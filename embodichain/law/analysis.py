"""The analysis of a set of runs, whole. Takes: cells and a plan. Hands on: an `Analysis` for the report.

>>> cells = read_cells(["runs/my-sweep"])
>>> analysis = analyse(cells, load_plan("configs/sweeps/throughput.plan.yaml"))
>>> write_report(analysis, Path("runs/my-sweep/report"))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embodichain.law.admit import Admitted, admit, has_metric
from embodichain.law.attribution import Crossing, MatchedD, crossing, matched_comparison
from embodichain.law.cell import Cell
from embodichain.law.compare import compare
from embodichain.law.design import STREAM, Group, groups_at_equal_core_seconds, groups_at_equal_steps
from embodichain.law.effect import effect_of_throughput, holm
from embodichain.law.holdout import holdout
from embodichain.law.noise import error_noise, success_noise
from embodichain.law.plan import METRICS, Plan
from embodichain.law.tables import Table, tables_for
from embodichain.law.verdict import GroupResult, Verdict, conclude, threshold_criteria, too_small

LEAST_POINTS = 6  # below it no curve is drawn, whatever the plan says


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """All that was found.

    Attributes:
        plan: what was to be done. `admitted`: which runs count, exclusions, deviations, notes.
        verdict: the conclusion; None for tables, which draw none.
        results: groups at equal gradient steps: of the plan's metric first, then of the other one (secondary).
        by_compute: groups at equal core-seconds, of held-out error.
        matched, crossed: the controls, in the plan's metric.
        tables: of `replay_bound`, `domain_expansion`, `actors`.
        deviations: from the plan, those of `admitted` included.
    """

    plan: Plan
    admitted: Admitted
    verdict: Verdict | None = None
    results: tuple[GroupResult, ...] = ()
    by_compute: tuple[GroupResult, ...] = ()
    matched: MatchedD | None = None
    crossed: Crossing | None = None
    tables: tuple[Table, ...] = ()
    deviations: tuple[str, ...] = ()

    @property
    def primary(self) -> tuple[GroupResult, ...]:
        """Results of the plan's own metric at equal steps."""
        return tuple(result for result in self.results if result.metric == self.plan.metric)


def analyse(cells: Sequence[Cell], plan: Plan) -> Analysis:
    """Analyse runs as the plan says. Equal cells and plans give equal results.

    Raises:
        LawError: nothing to analyse, or runs that must not be compared (`law.admit`).
    """
    admitted = admit(cells, plan)
    if plan.kind != "throughput":
        rng = np.random.default_rng(plan.seed)
        tables = tables_for(admitted.cells, plan, rng)
        return Analysis(plan=plan, admitted=admitted, tables=tables, deviations=admitted.deviations)
    groups = groups_at_equal_steps(admitted.cells, plan)
    primary = _results(groups, plan.metric, plan)
    other = next(metric for metric in METRICS if metric != plan.metric)
    secondary = _results(groups_at_equal_steps(admitted.cells, replace(plan, metric=other)), other, plan)
    by_compute = _results(groups_at_equal_core_seconds(admitted.cells, plan), "error", plan)
    rng = np.random.default_rng([plan.seed, 1])
    matched = matched_comparison(groups, plan.metric, plan, rng)
    points = [point for group in groups for point in group.points]
    crossed = crossing(points, plan.metric, plan, rng) if points else None
    return Analysis(
        plan=plan,
        admitted=admitted,
        verdict=conclude(primary, matched, crossed, plan),
        results=tuple(primary + secondary),
        by_compute=tuple(by_compute),
        matched=matched,
        crossed=crossed,
        deviations=(*admitted.deviations, *_deviations(admitted, groups, primary, matched, plan)),
    )


def _results(groups: Sequence[Group], metric: str, plan: Plan) -> list[GroupResult]:
    """Every group's tests and fits, p-values corrected over the groups that can carry a conclusion."""
    first = [_test(group, metric, plan, number) for number, group in enumerate(groups) if group.points]
    sound = [i for i, result in enumerate(first) if not result.short]
    adjusted = dict(zip(sound, holm([first[i].effect.p for i in sound]), strict=True))
    results = [
        _fit(replace(result, p_holm=adjusted.get(i, result.effect.p)), plan, i) for i, result in enumerate(first)
    ]
    asked = {
        i: result.comparison.threshold.p
        for i, result in enumerate(results)
        if result.comparison and result.comparison.threshold
    }
    corrected = holm(list(asked.values()))
    for i, p in zip(asked, corrected, strict=True):
        result = results[i]
        assert result.comparison is not None
        criteria = threshold_criteria(result.comparison, result.group, p, plan)
        results[i] = replace(result, p_threshold=p, threshold=criteria)
    return [_check(result, plan, number) for number, result in enumerate(results)]


def _test(group: Group, metric: str, plan: Plan, number: int) -> GroupResult:
    """The test for an effect, and the noise."""
    rng = np.random.default_rng([plan.seed, 2, number])
    points = group.points
    score = np.array([-p.y if metric == "error" else p.k / p.n for p in points])
    seed = np.array([p.cell.seed for p in points])
    effect = effect_of_throughput(score, group.level_of(), seed, plan.permutations, rng)
    return GroupResult(
        group=group,
        metric=metric,
        short=too_small(group, plan),
        effect=effect,
        p_holm=effect.p,
        comparison=None,
        p_threshold=None,
        threshold=(),
        holdout=None,
        noise=error_noise(points) if metric == "error" else success_noise(points, plan.split),
    )


def _fit(result: GroupResult, plan: Plan, number: int) -> GroupResult:
    """The three curves; a threshold is asked for only where there is an effect and enough runs."""
    group = result.group
    if group.levels < 3 or len(group.points) < LEAST_POINTS:
        return result
    rng = np.random.default_rng([plan.seed, 3, number])
    ask = not result.short and result.p_holm <= plan.alpha
    return replace(result, comparison=compare(group.points, result.metric, plan, rng, threshold=ask))


def _check(result: GroupResult, plan: Plan, number: int) -> GroupResult:
    """The hold-out check of the curve that is shown."""
    if result.comparison is None:
        return result
    rng = np.random.default_rng([plan.seed, 4, number])
    return replace(result, holdout=holdout(result.group.points, result.metric, result.preferred, plan.alpha, rng))


def _deviations(
    admitted: Admitted, groups: Sequence[Group], primary: Sequence[GroupResult], matched: MatchedD | None, plan: Plan
) -> list[str]:
    """What the plan asked for and the runs do not give."""
    lines = [f"{result.group.label}: {result.short}" for result in primary if result.short]
    for share in plan.shares:
        if not any(group.share == share for group in groups):
            lines.append(f"no run has a reading at {100 * share:.0f} % of its budget, which the plan wants")
    if plan.matched_d and matched is None:
        lines.append("no matched-D pair, which the plan wants")
    unread = [c for c in admitted.cells if c.arm == STREAM and not has_metric(c.final, plan.metric, plan.split)]
    lines += [f"{cell.path}: no {plan.metric} at the end of the run" for cell in unread]
    return lines
