from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embodichain.contracts import WindowSpec
from embodichain.replay.tiling import available, check_window, draw_pass, draw_phase, segment_changes, tile


def random_window(rng: np.random.Generator) -> WindowSpec:
    tau = int(rng.integers(1, 10))
    return WindowSpec(
        frames=int(rng.integers(1, 6)),
        tau=tau,
        chunk=tau + int(rng.integers(0, 9)),
        burn_in=int(rng.integers(0, 3)),
        phase_step=int(rng.choice([1, tau])),
    )


def test_a_pass_uses_every_pair_exactly_once() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        window, length = random_window(rng), int(rng.integers(1, 300))
        tiles = tile(length, window, draw_phase(window, rng))
        pairs = np.concatenate([np.arange(start, stop) for start, stop in tiles])
        np.testing.assert_array_equal(pairs, np.arange(length))
        sizes = np.diff(tiles)[:, 0]
        assert np.all(sizes[1:-1] == window.pairs)
        assert np.all((sizes >= 1) & (sizes <= window.pairs))
        assert np.all(tiles[:, 0] % window.phase_step == 0)


def random_changes(rng: np.random.Generator, length: int) -> np.ndarray:
    return np.sort(rng.choice(np.arange(1, length), min(length - 1, int(rng.integers(0, 9))), replace=False))


def test_a_pass_over_segments_uses_every_pair_once_and_crosses_no_border() -> None:
    rng = np.random.default_rng(1)
    for _ in range(500):
        window, length = replace(random_window(rng), mode="segment"), int(rng.integers(2, 300))
        changes = random_changes(rng, length)
        tiles = draw_pass(length, changes, window, rng)
        pairs = np.concatenate([np.arange(start, stop) for start, stop in tiles])
        np.testing.assert_array_equal(pairs, np.arange(length))
        for start, stop in tiles:
            assert not np.any((changes > start) & (changes < stop))
            assert start // window.phase_step * window.phase_step + window.pairs >= stop
        assert available(length, changes, window).all()


def test_boundary_tiles_hold_every_change_once_and_little_else() -> None:
    rng = np.random.default_rng(2)
    for _ in range(1000):
        window, length = replace(random_window(rng), mode="boundary"), int(rng.integers(2, 300))
        changes = random_changes(rng, length)
        tiles = draw_pass(length, changes, window, rng)
        uses = np.zeros(length, dtype=int)
        for start, stop in tiles:
            uses[start:stop] += 1
            assert np.any((changes >= start) & (changes < stop))
            assert start % window.phase_step == 0
            assert stop - start == window.pairs or stop == length
        assert uses.max(initial=0) <= 1
        np.testing.assert_array_equal(uses == 1, available(length, changes, window))
        assert np.all(uses[changes] == 1)
    alone = draw_pass(200, np.array([100]), WindowSpec(frames=4, tau=8, mode="boundary"), rng)
    assert alone == [(84, 116)]


def test_segment_changes_are_the_first_steps_of_new_segments() -> None:
    assert segment_changes(np.array([0, 0, 1, 1, 0, 2], dtype=np.int16)).tolist() == [2, 4, 5]
    assert segment_changes(np.array([3], dtype=np.int16)).size == 0


def test_phases_cover_their_grid_uniformly() -> None:
    rng, window = np.random.default_rng(1), WindowSpec(frames=3, tau=4, phase_step=4)
    counts = np.bincount([draw_phase(window, rng) for _ in range(3000)], minlength=12)
    assert np.all(counts[::4] > 900)
    assert counts.sum() == counts[::4].sum()


@pytest.mark.parametrize(("length", "phase"), [(0, 0), (10, -1), (10, 32), (10, 3)])
def test_impossible_tilings_are_refused(length: int, phase: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        tile(length, WindowSpec(frames=4, tau=8, phase_step=8), phase)


@pytest.mark.parametrize(
    ("window", "episode_tau", "key"),
    [
        (WindowSpec(frames=4, tau=8, phase_step=5), 1, "phase_step"),
        (WindowSpec(frames=4, tau=6, phase_step=6), 4, "tau"),
        (WindowSpec(frames=4, tau=8, phase_step=1), 8, "phase_step"),
    ],
)
def test_windows_off_the_frame_grid_are_refused(window: WindowSpec, episode_tau: int, key: str) -> None:
    with pytest.raises(ValueError, match=f"window.{key}="):
        check_window(window, episode_tau)
