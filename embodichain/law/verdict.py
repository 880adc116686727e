"""What may be concluded. Takes: the tests of every group and the controls. Hands on: a verdict with its reasons.

The order of the questions is fixed: are there enough runs; is there any effect; does the curve predict unseen runs; is
it throughput rather than the amount of data; and is there a threshold. The first "no" ends it, and the report says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embodichain.law.attribution import Crossing, MatchedD
from embodichain.law.compare import Comparison
from embodichain.law.design import Group, human
from embodichain.law.effect import Effect
from embodichain.law.holdout import Holdout
from embodichain.law.noise import Noise
from embodichain.law.plan import Plan

HEADLINES = {
    "insufficient": "Not enough runs to say anything",
    "no_effect": "No effect detected at this budget",
    "poor_fit": "An effect, but no law: the curve does not describe the runs",
    "unattributed": "Performance grows with E, not attributed: throughput and data-set size were not told apart",
    "data_size": "Performance grows with E as it does with the amount of data: no effect of throughput beyond it",
    "law": "Performance grows with experience throughput beyond what the amount of data explains",
}


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One question of the plan: what was asked, whether it was met, and the number that decided."""

    name: str
    met: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """Everything about one (C, P).

    Attributes:
        group: its runs. `metric`: of this result.
        short: why it is too small for a conclusion; empty if it is not.
        effect: with `p_holm`, corrected over the groups of this view and metric.
        comparison: fits; None where they are impossible. `p_threshold`: corrected like `p_holm`; None: not tested.
        threshold: the criteria for E*; empty if it was not asked.
        holdout, noise: see their modules.
    """

    group: Group
    metric: str
    short: str
    effect: Effect
    p_holm: float
    comparison: Comparison | None
    p_threshold: float | None
    threshold: tuple[Criterion, ...]
    holdout: Holdout | None
    noise: Noise

    @property
    def has_threshold(self) -> bool:
        """Whether every criterion for E* is met."""
        return bool(self.threshold) and all(criterion.met for criterion in self.threshold)

    @property
    def preferred(self) -> str:
        """The curve to show: `none` without an effect, `hinge` if a threshold was found, else `plain`."""
        if not self.threshold and not self.short:
            return "none"
        return "hinge" if self.has_threshold else "plain"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The conclusion.

    Attributes:
        name: a key of `HEADLINES`. `headline`: in words. `criteria`: what decided, in order.
        threshold_groups: labels of groups with an effect that have an E*.
    """

    name: str
    headline: str
    criteria: tuple[Criterion, ...]
    threshold_groups: tuple[str, ...] = ()


def too_small(group: Group, plan: Plan) -> str:
    """Why a group cannot carry a conclusion; empty if it can."""
    if not group.points:
        return "no runs of the stream arm"
    seeds = min(len({p.cell.seed for p in group.points if p.level == level}) for level in range(group.levels))
    throughput = group.level_throughput()
    span = float(throughput.max() / throughput.min())
    if group.levels < plan.min_levels:
        return f"{group.levels} levels of E; the plan wants {plan.min_levels}"
    if seeds < plan.min_seeds:
        return f"{seeds} training seeds at some level; the plan wants {plan.min_seeds}"
    if span < plan.min_span:
        return f"E spans a factor of {span:.3g}; the plan wants {plan.min_span:g}"
    return ""


def threshold_criteria(comparison: Comparison, group: Group, p: float, plan: Plan) -> tuple[Criterion, ...]:
    """Whether the hinge is to be believed."""
    found = comparison.threshold
    assert found is not None
    lowest, highest = group.level_throughput()[[0, -1]]
    inside = lowest < found.low and found.high < highest
    return (
        Criterion(
            name="the hinge beats the law without a threshold", met=p <= plan.alpha, detail=f"p = {p:.2g} (Holm)"
        ),
        Criterion(
            name="AICc prefers it",
            met=found.aicc_gain >= plan.threshold_aicc,
            detail=f"gain {found.aicc_gain:.1f}, wanted {plan.threshold_aicc:g}",
        ),
        Criterion(
            name="it predicts left-out training seeds better",
            met=found.left_out_gain > 0,
            detail=f"error smaller by {100 * found.left_out_gain:.0f} %",
        ),
        Criterion(
            name="levels on either side",
            met=min(found.levels_below, found.levels_above) >= plan.threshold_levels,
            detail=f"{found.levels_below} below, {found.levels_above} above, wanted {plan.threshold_levels}",
        ),
        Criterion(
            name="the interval of E* lies inside the measured range",
            met=bool(inside),
            detail=f"[{human(found.low)}, {human(found.high)}] in [{human(lowest)}, {human(highest)}]",
        ),
    )


def conclude(results: Sequence[GroupResult], matched: MatchedD | None, crossed: Crossing | None, plan: Plan) -> Verdict:
    """The verdict over the groups of the primary metric at equal steps."""
    criteria: list[Criterion] = []
    sound = [result for result in results if not result.short]
    criteria.append(
        Criterion(
            name="enough runs",
            met=bool(sound),
            detail=f"{len(sound)} of {len(results)} groups"
            + ("" if sound or not results else f"; {results[0].group.label}: {results[0].short}"),
        )
    )
    if not sound:
        return _verdict("insufficient", criteria)
    moved = [result for result in sound if result.p_holm <= plan.alpha]
    least = min(result.p_holm for result in sound)
    criteria.append(
        Criterion(
            name="an effect of E",
            met=bool(moved),
            detail=f"{len(moved)} of {len(sound)} groups; least p {least:.2g} (Holm)",
        )
    )
    if not moved:
        return _verdict("no_effect", criteria)
    criteria += [_describes(moved, plan), _predicts(moved, plan)]
    if not all(criterion.met for criterion in criteria):
        return _verdict("poor_fit", criteria)
    finding, criterion = _attribution(matched, crossed, plan)
    criteria.append(criterion)
    if finding != "law":
        return _verdict(finding, criteria)
    with_threshold = tuple(result.group.label for result in moved if result.has_threshold)
    criteria.append(
        Criterion(
            name="a threshold E*", met=bool(with_threshold), detail=f"{len(with_threshold)} of {len(moved)} groups"
        )
    )
    return _verdict("law", criteria, with_threshold)


def _describes(moved: Sequence[GroupResult], plan: Plan) -> Criterion:
    worst = min(r.comparison.fits[r.preferred].explained if r.comparison else 0.0 for r in moved)
    return Criterion(
        name="the curve describes what E changes",
        met=worst >= plan.explained,
        detail=f"at worst {100 * worst:.0f} % of the levels' differences, wanted {100 * plan.explained:.0f} %",
    )


def _predicts(moved: Sequence[GroupResult], plan: Plan) -> Criterion:
    checked = [r.holdout.coverage for r in moved if r.holdout is not None and r.holdout.possible]
    worst = min(checked) if checked else float("nan")
    return Criterion(
        name="half of the runs predict the others",
        met=bool(checked) and worst >= plan.holdout_coverage,
        detail=(
            f"at worst {100 * worst:.0f} % inside their {100 * (1 - plan.alpha):.0f} % intervals, wanted "
            f"{100 * plan.holdout_coverage:.0f} %"
            if checked
            else "half of the runs are too few for the curve"
        ),
    )


def _attribution(matched: MatchedD | None, crossed: Crossing | None, plan: Plan) -> tuple[str, Criterion]:
    name = "throughput rather than the amount of data"
    if matched is not None:
        overall = matched.overall
        between = f"{overall.mean:+.3f} [{overall.low:+.3f}, {overall.high:+.3f}]"
        detail = f"stream minus matched-D {between}, {overall.pairs} pairs"
        against = crossed is not None and {matched.finding, crossed.finding} == {"fresh", "data"}
        if against:
            return "unattributed", Criterion(name=name, met=False, detail=f"{detail}; crossing E with steps disagrees")
        outcome = {"fresh": "law", "data": "data_size", "unresolved": "unattributed"}[matched.finding]
        return outcome, Criterion(name=name, met=outcome == "law", detail=detail)
    if plan.matched_d:
        return "unattributed", Criterion(name=name, met=False, detail="no matched-D arm, which the plan wants")
    if crossed is None or crossed.collinear:
        vif = "" if crossed is None else f" (rank {crossed.rank} of {crossed.columns}, VIF {crossed.vif:.3g})"
        return "unattributed", Criterion(name=name, met=False, detail=f"E and D are collinear{vif}")
    outcome = {"fresh": "law", "data": "data_size", "unresolved": "unattributed"}[crossed.finding]
    slope, low, high = crossed.at_equal_data
    return outcome, Criterion(
        name=name, met=outcome == "law", detail=f"slope over log E at equal D {slope:+.3f} [{low:+.3f}, {high:+.3f}]"
    )


def _verdict(name: str, criteria: list[Criterion], thresholds: tuple[str, ...] = ()) -> Verdict:
    headline = HEADLINES[name]
    if name == "law":
        headline += "; threshold E* found" if thresholds else "; no threshold found in the measured range"
    return Verdict(
        name=name,
        headline=headline,
        criteria=tuple(criteria),
        threshold_groups=thresholds,
    )
