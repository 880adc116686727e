"""Wilson's interval against published values and its own defining equation."""

from __future__ import annotations

import math

import pytest

from embodichain.contracts import wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (four decimals).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "n"), [(1, 2), (18, 30), (190, 200), (3, 1000)])
def test_bounds_solve_the_score_equation(successes: int, n: int) -> None:
    """Each bound b satisfies |p - b| = z sqrt(b (1 - b) / n)."""
    for bound in wilson_interval(successes, n, z=1.96):
        assert abs(successes / n - bound) == pytest.approx(1.96 * math.sqrt(bound * (1 - bound) / n), rel=1e-9)


def test_edges_and_symmetry() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(10, 10)[1] == 1.0
    low, high = wilson_interval(7, 30)
    assert wilson_interval(23, 30) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("successes", "n", "z"), [(5, 4, 1.96), (-1, 4, 1.96), (0, -1, 1.96), (1, 2, 0.0)])
def test_impossible_counts_are_refused(successes: int, n: int, z: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        wilson_interval(successes, n, z)
