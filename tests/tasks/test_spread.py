"""Evenly spread points: the sequence they are made of, its blocks, and how they compare with random ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import qmc

from embodichain.contracts import seed_range
from tasks.spread import BITS, DIMENSIONS, _sobol, spread_point


def points(name: str, start: int, count: int, dimensions: int) -> np.ndarray:
    return np.stack([spread_point(name, start + i, dimensions) for i in range(count)])


def test_the_sequence_is_that_of_sobol() -> None:
    ours = np.array([[_sobol(i, d) for d in range(DIMENSIONS)] for i in range(256)]) / 2.0**BITS
    theirs = qmc.Sobol(DIMENSIONS, scramble=False).random(256)  # in Gray-code order
    np.testing.assert_array_equal(ours[[i ^ i >> 1 for i in range(256)]], theirs)


@pytest.mark.parametrize("start", [0, 64 * 1234, seed_range("train").start])
def test_aligned_blocks_fill_every_cell_once(start: int) -> None:
    block = points("task/grasp/0", start, 64, 5)
    for axis in range(5):
        assert sorted((block[:, axis] * 64).astype(int)) == list(range(64))
    cells = (block[:, :2] * 8).astype(int)
    assert len({tuple(cell) for cell in cells}) == 64


@pytest.mark.parametrize("start", [0, 777, seed_range("train").start + 12345])
def test_any_consecutive_seeds_are_spread_better_than_random_ones(start: int) -> None:
    even = qmc.discrepancy(points("task/start/left/0", start, 100, 4))
    random = [qmc.discrepancy(np.random.default_rng(i).random((100, 4))) for i in range(20)]
    assert even < 0.5 * min(random)


def test_names_have_sequences_of_their_own() -> None:
    left, right = points("task/a", 0, 256, 3), points("task/b", 0, 256, 3)
    np.testing.assert_array_equal(left, points("task/a", 0, 256, 3))
    assert np.abs(np.corrcoef(left.T, right.T)[:3, 3:]).max() < 0.25
    assert qmc.discrepancy(np.c_[left[:, :2], right[:, :2]]) < 0.005


@pytest.mark.parametrize(("index", "dimensions"), [(-1, 2), (1 << BITS, 2), (0, 6), (0, 0)])
def test_what_the_sequence_does_not_have_is_refused(index: int, dimensions: int) -> None:
    with pytest.raises(ValueError, match="spread"):
        spread_point("task/a", index, dimensions)
