"""Made-up sweeps with known laws: the right conclusion comes out, as often as is stated."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from embodichain.law import Analysis, Plan, Reading, analyse
from embodichain.law.fakes import Sweep, synthetic_cells

QUICK = Plan(resamples=60, permutations=400, shares=(1.0,))
ONE_SIZE = Sweep(sizes=(400_000,), shares=(1.0,), trials=0)


def verdicts(sweep: Sweep, count: int, plan: Plan = QUICK) -> list[Analysis]:
    return [analyse(synthetic_cells(sweep, seed), plan) for seed in range(count)]


def names(found: list[Analysis]) -> Counter[str]:
    return Counter(each.verdict.name for each in found if each.verdict is not None)


def test_no_law_is_found_where_there_is_none() -> None:
    """At alpha = 0.05 forty null sweeps give at most five effects with probability 0.986, whatever the seeds."""
    plan = replace(QUICK, resamples=10)  # what is looked at here needs none
    counts = names(verdicts(replace(ONE_SIZE, world="null"), 40, plan))
    assert counts["no_effect"] >= 35
    assert counts["law"] <= 2


def test_a_power_law_is_found_without_a_threshold() -> None:
    found = verdicts(ONE_SIZE, 6)
    assert names(found) == {"law": 6}
    assert sum(bool(each.verdict and each.verdict.threshold_groups) for each in found) <= 1
    inside = 0
    for each in found:
        comparison = each.primary[0].comparison
        assert comparison is not None
        _, low, high = comparison.fits["plain"].parameters["alpha"]
        inside += low <= 0.5 <= high
    assert inside >= 5


def test_a_threshold_is_found_where_it_is() -> None:
    found = verdicts(replace(ONE_SIZE, world="hinge"), 5)
    assert names(found) == {"law": 5}
    stars = [each.primary[0].comparison.threshold for each in found if each.primary[0].has_threshold]  # type: ignore[union-attr]
    assert len(stars) >= 4
    assert all(star is not None and 8.0 < star.estimate < 32.0 for star in stars)
    assert sum(star.low <= 16.0 <= star.high for star in stars if star is not None) >= len(stars) - 1


def test_data_alone_are_not_called_throughput() -> None:
    counts = names(verdicts(replace(ONE_SIZE, world="data"), 6))
    assert counts["law"] == 0
    assert counts["data_size"] >= 4  # the others: the interval was too wide to say that nothing is left


def test_without_the_matched_arm_nothing_is_attributed() -> None:
    (found,) = verdicts(replace(ONE_SIZE, matched=False), 1)
    assert found.verdict is not None
    assert found.verdict.name == "unattributed"
    assert "no matched-D arm" in found.verdict.criteria[-1].detail
    assert any("no matched-D pair" in line for line in found.deviations)
    (collinear,) = verdicts(replace(ONE_SIZE, matched=False), 1, replace(QUICK, matched_d=False))
    assert collinear.verdict is not None
    assert collinear.verdict.name == "unattributed"
    assert "collinear (rank 2 of 3" in collinear.verdict.criteria[-1].detail


@pytest.mark.parametrize(("world", "name"), [("power", "law"), ("data", "data_size")])
def test_crossing_attributes_where_the_plan_allows_it(world: str, name: str) -> None:
    crossed = replace(ONE_SIZE, world=world, matched=False, steps=(500, 2000, 8000))
    (found,) = verdicts(crossed, 1, replace(QUICK, matched_d=False))
    assert found.crossed is not None
    assert not found.crossed.collinear
    assert found.verdict is not None
    assert found.verdict.name == name


@pytest.mark.parametrize(("world", "name"), [("power", "law"), ("data", "data_size")])
def test_readings_on_the_way_cross_throughput_with_steps(world: str, name: str) -> None:
    """One step budget, read off over a factor of eight: as good as several budgets."""
    crossed = replace(ONE_SIZE, world=world, matched=False, shares=(0.125, 0.25, 0.5, 1.0))
    (found,) = verdicts(crossed, 1, replace(QUICK, matched_d=False, shares=(0.125, 0.25, 0.5, 1.0)))
    assert found.crossed is not None
    assert not found.crossed.collinear
    assert found.verdict is not None
    assert found.verdict.name == name


@pytest.mark.parametrize(
    ("sweep", "complaint"),
    [
        (replace(ONE_SIZE, levels=(2, 8, 32)), "3 levels of E"),
        (replace(ONE_SIZE, seeds=2), "2 training seeds"),
        (replace(ONE_SIZE, levels=(2, 3, 4, 6, 8, 10)), "E spans a factor of"),
    ],
)
def test_too_few_runs_conclude_nothing(sweep: Sweep, complaint: str) -> None:
    (found,) = verdicts(sweep, 1)
    assert found.verdict is not None
    assert found.verdict.name == "insufficient"
    assert any(complaint in line for line in found.deviations)


def test_a_curve_that_does_not_fit_is_no_law() -> None:
    """Errors that fall, rise and fall again: an effect, which no monotone curve predicts."""
    shape = dict(zip((2.0, 4.0, 8.0, 16.0, 32.0, 64.0), (10, 3, 9, 2, 6, 1), strict=True))
    cells = []
    for cell in synthetic_cells(replace(ONE_SIZE, sigma=0.01), 0):
        error = shape[float(cell.values["replay.fresh_per_step"] or 0)] * (1 + 0.01 * cell.seed)
        cells.append(replace(cell, readings=(replace(cell.final, error=error),)))
    found = analyse(cells, QUICK)
    assert found.verdict is not None
    assert found.verdict.name == "poor_fit"


def test_success_can_decide_and_is_corrected_over_groups() -> None:
    sweep = replace(ONE_SIZE, trials=30, sizes=(400_000, 1_600_000))
    found = analyse(synthetic_cells(sweep, 0), replace(QUICK, metric="success"))
    assert found.verdict is not None
    assert found.verdict.name == "law"
    assert [result.metric for result in found.results] == ["success", "success", "error", "error"]
    assert all(result.p_holm >= result.effect.p for result in found.results)


def test_equal_core_seconds_is_another_question_than_equal_steps() -> None:
    """Generation that costs a second a pair eats at equal cost what more E brings at equal steps."""
    cells = []
    for cell in synthetic_cells(replace(ONE_SIZE, shares=(0.125, 0.25, 0.5, 1.0)), 0):
        readings: list[Reading] = []
        for reading in cell.readings:
            cost = reading.step * (1.0 + 0.1 * reading.throughput)
            readings.append(replace(reading, core_seconds=cost, error=(reading.error or 0) * reading.step**-0.5))
        cells.append(replace(cell, readings=tuple(readings)))
    found = analyse(cells, replace(QUICK, shares=(1.0,)))
    (steps,), (equal_cost,) = found.primary, found.by_compute
    assert steps.p_holm <= 0.05
    assert equal_cost.p_holm > 0.05
    assert {point.reading.core_seconds for point in equal_cost.group.points} == {equal_cost.group.budget}
    assert not equal_cost.group.missing


def test_equal_cells_and_plans_give_equal_results() -> None:
    from embodichain.law.report_data import as_data

    first, second = (as_data(analyse(synthetic_cells(ONE_SIZE, 5), QUICK)) for _ in range(2))
    assert first == second


@pytest.mark.slow
def test_the_level_is_kept_over_many_null_sweeps() -> None:
    """Four hundred null sweeps by either metric, two sizes: false effects at most 5 %, plus three standard errors."""
    sweep = replace(ONE_SIZE, world="null", sizes=(400_000, 1_600_000), trials=20)
    for metric in ("error", "success"):
        found = verdicts(sweep, 400, replace(QUICK, resamples=20, metric=metric))
        false = 400 - names(found)["no_effect"]
        assert false <= stats.binom.ppf(0.9987, 400, 0.05)


@pytest.mark.slow
def test_intervals_cover_over_many_sweeps() -> None:
    """Hundred sweeps: the exponent is inside its 95 % interval in at least 85; false thresholds in at most 10."""
    plan = replace(QUICK, resamples=200)
    found = verdicts(ONE_SIZE, 100, plan)
    fits = [each.primary[0].comparison.fits["plain"].parameters["alpha"] for each in found]  # type: ignore[union-attr]
    assert sum(low <= 0.5 <= high for _, low, high in fits) >= 85
    assert sum(each.primary[0].has_threshold for each in found) <= 10
    coverage = [each.primary[0].holdout.coverage for each in found]  # type: ignore[union-attr]
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.03)
