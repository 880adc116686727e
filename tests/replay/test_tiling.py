from __future__ import annotations

import numpy as np
import pytest

from embodichain.contracts import WindowSpec
from embodichain.replay.tiling import check_window, draw_phase, tile


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
