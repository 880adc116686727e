"""The probes of image encoders on made-up frames: they find what is there, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.encoder import Ridge, Split, area_under, balanced_accuracy, over_episodes, read_out, run, threshold_of
from embodichain.app.frames import FrameSet


def made_up(episodes: int = 24, each: int = 6, size: int = 32) -> FrameSet:
    """A bright square on a dark ground: where it is decides the object, how bright it is the contact."""
    rng = np.random.default_rng(0)
    n = episodes * each
    corner = rng.integers(0, size - 8, (n, 2))
    contact = rng.random((n, 2)) < 0.4
    rgb = rng.integers(0, 20, (n, size, size, 3), dtype=np.uint8)
    for frame, (x, y), (touch, _) in zip(rgb, corner, contact, strict=True):
        frame[y : y + 8, x : x + 8] = 250 if touch else 120
    position = np.concatenate([corner / 100.0, np.zeros((n, 1))], axis=1).astype(np.float32)
    return FrameSet(
        rgb=rgb,
        camera=np.zeros(n, np.int16),
        episode=np.repeat(np.arange(episodes, dtype=np.int32), each),
        step=np.tile(np.arange(each, dtype=np.int16), episodes),
        object_position=position,
        tool_position=np.stack([position, -position], axis=1),
        contact=contact,
    )


def test_no_episode_is_on_both_sides_or_in_two_folds() -> None:
    episode = np.repeat(np.arange(30), 5)
    split = Split.of(episode, seed=1)
    assert not set(episode[split.train]) & set(episode[split.test])
    assert len(split.train) + len(split.test) == len(episode)
    for name in np.unique(episode[split.train]):
        assert len(set(split.fold[episode[split.train] == name])) == 1
    with pytest.raises(ValueError, match="7 episodes, expected at least 8"):
        Split.of(np.arange(7), seed=0)


def test_the_kernel_solves_what_least_squares_solves() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5))
    truth = x @ rng.normal(size=(5, 2)) + 3.0
    split = Split.of(np.repeat(np.arange(40), 5), seed=0)
    inside, outside, strength = Ridge(x, split).fit(truth)
    assert strength == pytest.approx(1e-5)
    np.testing.assert_allclose(outside, truth[split.test], atol=2e-2)
    np.testing.assert_allclose(inside, truth[split.train], atol=2e-2)


def test_measures_of_contact() -> None:
    truth = np.array([True, True, False, False])
    assert area_under(np.array([3.0, 2.0, 1.0, 0.0]), truth) == 1.0
    assert area_under(np.array([0.0, 1.0, 2.0, 3.0]), truth) == 0.0
    assert area_under(np.ones(4), truth) == 0.5
    assert np.isnan(area_under(np.ones(4), np.ones(4, dtype=bool)))
    assert balanced_accuracy(np.array([True, False, False, False]), truth) == 0.75
    level = threshold_of(np.array([0.9, 0.8, 0.2, 0.1]), truth)
    assert 0.2 <= level < 0.8


def test_intervals_come_from_episodes_not_rows() -> None:
    episode = np.repeat([0, 1], 500)
    values = np.repeat([0.0, 1.0], 500)
    mean, low, high = over_episodes(episode, lambda rows: float(values[rows].mean()))
    assert (mean, low, high) == (0.5, 0.0, 1.0)  # two episodes, however many rows


def test_pixels_show_where_the_square_is_and_nothing_shows_nothing() -> None:
    frames = made_up()
    split = Split.of(frames.episode, seed=0)
    pixels = read_out(frames.rgb.reshape(len(frames), -1) / 255.0, frames, split)
    nothing = read_out(np.zeros((len(frames), 1)), frames, split)
    assert pixels.object_error.mean() < 0.6 * nothing.object_error.mean()
    assert area_under(pixels.contact[::2], pixels.touches[::2]) > 0.9
    assert area_under(nothing.contact, nothing.touches) == pytest.approx(0.5, abs=0.1)


def test_a_table_has_every_contender_with_its_interval() -> None:
    rows = run(made_up(), "random:tiny", "made-up")
    assert [row["dimensions"] for row in rows] == [256, 256, 3 * 9 * 9, 3 * 32 * 32, 1]
    assert rows[0]["object_cm_worse"] == 0.0
    assert rows[0]["object_cm"] == rows[1]["object_cm"]  # the twin of random weights is itself
    for row in rows:
        assert float(str(row["object_cm_low"])) <= float(str(row["object_cm"])) <= float(str(row["object_cm_high"]))
