"""Tests, intervals and variance components against closed forms and enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import isotonic_regression

from embodichain.law.attribution import crossing, paired_difference
from embodichain.law.bootstrap import interval, run_weights
from embodichain.law.cell import Cell, LawError, Reading, SuccessRow
from embodichain.law.design import Point, clusters
from embodichain.law.effect import effect_of_throughput, holm, monotone_variance
from embodichain.law.noise import error_noise, success_noise
from embodichain.law.paired import from_counts, from_outcomes, mcnemar, newcombe, ratio_of_errors
from embodichain.law.plan import Plan
from embodichain.law.tables import by_seed


def test_the_monotone_statistic_is_that_of_isotonic_regression() -> None:
    rng = np.random.default_rng(0)
    level = np.array([0, 0, 1, 1, 1, 2, 3, 3, 4, 4])
    scores = rng.standard_normal((20, 10))
    count = np.bincount(level)
    for row, found in zip(scores, monotone_variance(scores, level), strict=True):
        means = np.array([row[level == each].mean() for each in range(5)])
        best = isotonic_regression(means, weights=count.astype(float)).x
        assert found == pytest.approx(float((count * (best - row.mean()) ** 2).sum()))


def test_the_permutation_test_is_exact() -> None:
    """Two seeds, three levels: all 36 permutations within seeds by hand."""
    score = np.array([1.0, 2.0, 2.1, 1.2, 1.4, 3.0])
    level, seed = np.array([0, 1, 2, 0, 1, 2]), np.array([0, 0, 0, 1, 1, 1])
    aligned = score - np.repeat([score[:3].mean(), score[3:].mean()], 3)
    everything = [
        np.concatenate([first, second])
        for first in itertools.permutations(aligned[:3])
        for second in itertools.permutations(aligned[3:])
    ]
    null = monotone_variance(np.array(everything), level)
    exact = float((null >= monotone_variance(aligned[None], level)[0] - 1e-12).mean())
    found = effect_of_throughput(score, level, seed, 20_000, np.random.default_rng(0))
    assert found.blocked
    assert found.p == pytest.approx(exact, abs=0.01)


def test_holm_is_that_of_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_run_weights_give_the_variance_of_a_mean_without_bias() -> None:
    """Var of the resampled mean = s^2 / m for three runs; drawing m of m would give two thirds of it."""
    y, level = np.array([1.0, 2.0, 6.0]), np.zeros(3, dtype=int)
    weights = run_weights(level, 40_000, np.random.default_rng(0))
    assert weights.sum(axis=1) == pytest.approx(3.0)
    assert (weights @ y / 3).var() == pytest.approx(y.var(ddof=1) / 3, rel=0.03)


def test_interval_ignores_what_is_not_finite() -> None:
    assert interval(np.array([np.nan, 1.0, 1.0]), 0.05) == (1.0, 1.0)
    assert np.isnan(interval(np.array([np.nan]), 0.05)).all()


def test_newcombe_is_that_of_the_paper() -> None:
    """Newcombe (1998), table II, method 10, its first two contrasts."""
    assert newcombe((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert newcombe((9, 10), (3, 10)) == pytest.approx((0.1705, 0.8090), abs=1e-4)


def test_mcnemar_is_the_sign_test_of_what_differs() -> None:
    assert mcnemar(5, 0) == pytest.approx(2 * 0.5**5)
    assert mcnemar(0, 0) == 1.0


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.random(100)
    a, b = (difficulty < 0.6).astype(float)[None], (difficulty < 0.5).astype(float)[None]
    paired = from_outcomes(a, b, 0.05, 2000, rng)
    counted = from_counts([(int(a.sum()), 100)], [(int(b.sum()), 100)], 0.05)
    assert paired.difference == pytest.approx(counted.difference)
    assert paired.high - paired.low < 0.6 * (counted.high - counted.low)
    assert paired.worse == 0
    assert paired.p == pytest.approx(mcnemar(paired.better or 0, 0))


def test_identical_outcomes_leave_room() -> None:
    ones = np.ones((1, 30))
    found = from_outcomes(ones, ones, 0.05, 200, np.random.default_rng(0))
    assert found.low < 0 < found.high
    assert found.p == 1.0


def test_training_seeds_that_differ_widen_the_interval_of_counts() -> None:
    even = from_counts([(30, 60)] * 3, [(40, 60)] * 3, 0.05)
    uneven = from_counts([(10, 60), (30, 60), (50, 60)], [(20, 60), (40, 60), (60, 60)], 0.05)
    assert even.method == "Newcombe"
    assert uneven.method == "Welch over runs"
    assert uneven.high - uneven.low > even.high - even.low


def points(rates: np.ndarray, *, outcomes: bool = True) -> list[Point]:
    """f64[levels, runs, seeds] of 0 and 1 as points."""
    made = []
    for level, runs in enumerate(rates):
        for seed, solved in enumerate(runs):
            k = int(solved.sum())
            single = tuple((i, bool(ok)) for i, ok in enumerate(solved)) if outcomes else ()
            row = SuccessRow(task="t", split="s", domain="d", k=k, n=len(solved), outcomes=single)
            error = (2.0 + level) * (1.0 + 0.1 * seed)
            reading = Reading(step=10, unique_pairs=10.0 * 2**level, error=error, success=(row,))
            cell = Cell(name="c", path=f"{level}/{seed}", seed=seed, readings=(reading,))
            made.append(Point(cell=cell, reading=reading, level=level, k=k, n=len(solved)))
    return made


@pytest.mark.parametrize("training", [0.0, 0.1])
@pytest.mark.parametrize("outcomes", [True, False])
def test_training_noise_is_told_from_evaluation_noise(training: float, outcomes: bool) -> None:
    rng = np.random.default_rng(1)
    skill = 0.5 + training * rng.standard_normal((60, 3, 1))
    drawn = (rng.random((60, 3, 50)) < skill).astype(float)
    noise = success_noise(points(drawn, outcomes=outcomes), "s")
    assert noise.training == pytest.approx(training, abs=0.025)
    assert noise.evaluation == pytest.approx(np.sqrt(0.25 / 50), rel=0.1)
    assert noise.phi is not None
    assert noise.phi == pytest.approx(1.0 + 50 * training**2 / 0.25, rel=0.35)


def test_a_seed_that_is_lucky_everywhere_is_seen() -> None:
    made = points(np.ones((4, 3, 2)))
    assert error_noise(made).seed_share == pytest.approx(1.0)  # errors are (2 + level)(1 + seed / 10)


def test_clusters_keep_levels_apart() -> None:
    assert clusters([8.1, 2.0, 4.0, 7.9, 2.1], 0.15) == [[1, 4], [2], [3, 0]]


def test_student_interval_of_paired_differences() -> None:
    found = paired_difference(np.array([1.0, 2.0, 3.0]), 0.05, np.random.default_rng(0))
    assert (found.low, found.high) == pytest.approx((2 - 4.3027 / np.sqrt(3), 2 + 4.3027 / np.sqrt(3)), abs=1e-3)
    assert found.p == pytest.approx(0.25, abs=0.03)  # all of one sign: 2 of 8 flips


def crossed_points(levels: tuple[float, ...], steps: tuple[int, ...], slope_e: float, slope_d: float) -> list[Point]:
    made, rng = [], np.random.default_rng(1)
    for step in steps:
        for level, throughput in enumerate(levels):
            for seed in range(3):
                unique = throughput * step
                error = 20 * throughput**slope_e * unique**slope_d * np.exp(0.03 * rng.standard_normal())
                reading = Reading(step=step, unique_pairs=unique, error=float(error))
                cell = Cell(name="c", path=f"{step}/{level}/{seed}", seed=seed, readings=(reading,))
                made.append(Point(cell=cell, reading=reading, level=level))
    return made


@pytest.mark.parametrize(
    ("steps", "slope_e", "slope_d", "finding"),
    [
        ((1000,), -0.3, 0.0, "collinear"),
        ((1000, 1300), -0.3, 0.0, "collinear"),  # of full rank, but steps hardly vary
        ((500, 2000, 8000), -0.3, 0.0, "fresh"),
        ((500, 2000, 8000), 0.0, -0.3, "data"),
    ],
)
def test_crossing_tells_throughput_from_data_or_refuses(
    steps: tuple[int, ...], slope_e: float, slope_d: float, finding: str
) -> None:
    made = crossed_points((2.0, 4.0, 8.0, 16.0, 32.0, 64.0), steps, slope_e, slope_d)
    found = crossing(made, "error", Plan(resamples=200), np.random.default_rng(0))
    assert found.finding == finding
    assert found.collinear == (finding == "collinear")
    if len(steps) == 1:
        assert found.rank < found.columns
    if not found.collinear:
        slope, low, high = found.at_equal_data
        assert low < slope < high
        assert slope == pytest.approx(slope_e, abs=0.03)


def test_two_runs_of_one_seed_are_no_row_of_a_table() -> None:
    cells = [Cell(name=name, path=name, seed=seed) for name, seed in (("a", 0), ("b", 1), ("c", 0))]
    assert by_seed("row", cells[:2], lambda cell: 1.0 + cell.seed) == {0: 1.0, 1: 2.0}
    assert by_seed("row", cells, lambda cell: None) == {}
    with pytest.raises(LawError, match="c: a second run of seed 0 in row row"):
        by_seed("row", cells, lambda cell: 1.0)


def test_errors_are_compared_by_training_seed_and_as_factors() -> None:
    found = ratio_of_errors({0: 2.0, 1: 4.0, 2: 8.0, 7: 1.0}, {0: 1.0, 1: 2.1, 2: 3.9, 9: 1.0}, 0.05)
    assert found is not None
    logs = np.log([2.0, 4.0 / 2.1, 8.0 / 3.9])
    test = stats.ttest_1samp(logs, 0.0)
    around = np.exp(test.confidence_interval(0.95))
    assert (found.pairs, found.ratio, found.p) == (3, pytest.approx(np.exp(logs.mean())), pytest.approx(test.pvalue))
    assert (found.low, found.high) == (pytest.approx(around[0]), pytest.approx(around[1]))
    single = ratio_of_errors({0: 2.0}, {0: 1.0}, 0.05)
    assert single is not None
    assert (single.ratio, single.low, single.high, single.p) == (pytest.approx(2.0), 0.0, math.inf, None)
    assert ratio_of_errors({0: 2.0}, {1: 1.0}, 0.05) is None
