from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from embodichain.contracts import ACTION_DIM, Batch, Episode, WindowSpec
from embodichain.replay.fakes import fake_episode
from embodichain.replay.gather import batch_fields, concatenate, cut, gather, prepare
from embodichain.replay.tiling import draw_pass, draw_phase, segment_changes, tile


def slow_limits(episode: Episode, start: int, window: WindowSpec) -> tuple[int, int]:
    """What a window that starts at `start` may read."""
    low, high = 0, episode.pairs
    if window.mode == "segment":
        low = high = start
        while low > 0 and episode.segment_id[low - 1] == episode.segment_id[start]:
            low -= 1
        while high < episode.pairs and episode.segment_id[high] == episode.segment_id[start]:
            high += 1
    return low, high


def slow_window(episode: Episode, start: int, stop: int, window: WindowSpec) -> tuple[dict[str, np.ndarray], int]:
    """One window, entry by entry, straight from the contract; also the pairs it reads without loss."""
    assert episode.tokens is not None
    low, high = slow_limits(episode, start, window)
    first = start - start % window.phase_step
    count = window.burn_in + window.frames
    out = {
        "tokens": np.zeros((count + 1, *episode.tokens.shape[1:]), np.float32),
        "frame_mask": np.zeros(count + 1, bool),
        "proprio": np.zeros((count + 1, ACTION_DIM), np.float32),
        "action": np.zeros((count, window.chunk, ACTION_DIM), np.float32),
        "action_exists": np.zeros((count, window.chunk), bool),
        "action_mask": np.zeros((count, window.chunk), bool),
        "previous_action": np.zeros((count, window.tau, ACTION_DIM), np.float32),
        "previous_mask": np.zeros(count, bool),
    }
    read = set()
    for j in range(count + 1):
        frame = first + (j - window.burn_in) * window.tau
        if not low - low % window.phase_step <= frame <= high:
            continue
        out["frame_mask"][j] = True
        out["tokens"][j] = episode.tokens[frame // episode.tau]
        out["proprio"][j] = episode.proprio[frame]
        if j == count:
            continue
        for n in range(window.chunk):
            step = frame + n
            if low <= step < high:
                read.add(step)
                out["action"][j, n] = episode.action[step]
                out["action_exists"][j, n] = True
                valid = episode.label_valid is None or episode.label_valid[step]
                out["action_mask"][j, n] = j >= window.burn_in and start <= step < stop and valid
        if frame - window.tau >= low:
            out["previous_mask"][j] = True
            out["previous_action"][j] = episode.action[frame - window.tau : frame]
            read.update(range(frame - window.tau, frame))
    used = {t for t in range(start, stop) if episode.label_valid is None or episode.label_valid[t]}
    return out, len(read - used)


def source_labels(episode: Episode) -> np.ndarray:
    return np.ones(episode.pairs, bool) if episode.label_valid is None else episode.label_valid


def check_against_slow(episodes: list[Episode], window: WindowSpec, rng: np.random.Generator) -> None:
    picks = [
        (episode, int(start), int(stop))
        for episode in episodes
        for start, stop in draw_pass(episode.pairs, segment_changes(episode.segment_id), window, rng)
    ]
    sources = [prepare(episode, 1.5) for episode, _, _ in picks]
    tiles = np.array([(start, stop) for _, start, stop in picks])
    batch, context = gather(sources, tiles, np.zeros(len(picks), np.int64), window, shard=3)
    for b, (episode, start, stop) in enumerate(picks):
        expected, context_pairs = slow_window(episode, start, stop, window)
        for name, value in expected.items():
            np.testing.assert_array_equal(getattr(batch, name)[b], value, err_msg=f"{name} {window} {start} {stop}")
        assert context[b] == context_pairs
        assert batch.used_per_window[b] == source_labels(episode)[start:stop].sum()
        assert batch.recipe_id[b] == episode.recipe.id
    assert batch.tokens.dtype == np.float32
    if window.mode != "boundary":
        assert batch.pair_uses == sum(int(source_labels(episode).sum()) for episode in episodes)
    assert np.all(batch.shard == 3)


def test_state_windows_match_the_contract_entry_by_entry() -> None:
    rng = np.random.default_rng(0)
    for trial in range(40):
        tau = int(rng.integers(1, 9))
        window = WindowSpec(
            frames=int(rng.integers(1, 5)),
            tau=tau,
            chunk=tau + int(rng.integers(0, 12)),
            burn_in=int(rng.integers(0, 4)),
        )
        lengths = [int(length) for length in rng.integers(1, 90, size=3)]
        episodes = [fake_episode(10 * trial + i, n, 2, 3, mistakes=0.25 * (i > 0)) for i, n in enumerate(lengths)]
        check_against_slow(episodes, window, rng)


def test_image_windows_match_the_contract_entry_by_entry() -> None:
    rng = np.random.default_rng(1)
    for trial in range(20):
        window = WindowSpec(frames=3, tau=8, chunk=16, burn_in=trial % 3, phase_step=4)
        episodes = [fake_episode(10 * trial + i, 4 * int(rng.integers(2, 25)), 2, 3, tau=4) for i in range(3)]
        check_against_slow(episodes, window, rng)


@pytest.mark.parametrize("mode", ["segment", "boundary"])
@pytest.mark.parametrize("tau", [1, 4])
def test_windows_of_segments_and_boundaries_match_the_contract_entry_by_entry(mode: str, tau: int) -> None:
    rng = np.random.default_rng(2)
    for trial in range(25):
        window = WindowSpec(frames=3, tau=8, chunk=8 + trial % 9, burn_in=trial % 3, phase_step=tau, mode=mode)
        episodes = []
        for i in range(3):
            length = 4 * int(rng.integers(6, 25))
            changes = np.sort(rng.choice(np.arange(1, length), int(rng.integers(1, 7)), replace=False))
            episodes.append(
                fake_episode(10 * trial + i, length, 2, 3, tau=tau, changes=changes.tolist(), mistakes=0.2 * (i > 0))
            )
        check_against_slow(episodes, window, rng)


def test_a_segment_window_holds_nothing_of_another_segment() -> None:
    episode = fake_episode(0, 60, 2, 3, changes=[13, 37])
    window = WindowSpec(frames=4, tau=8, chunk=16, burn_in=2, mode="segment")
    tiles = np.array(draw_pass(60, np.array([13, 37]), window, np.random.default_rng(0)))
    batch, _ = gather([prepare(episode, 0.0)] * len(tiles), tiles, np.zeros(len(tiles), np.int64), window)
    for b, start in enumerate(batch.start):
        segment = episode.segment_id[start]
        steps = batch.action[b][batch.action_exists[b]][:, 0].astype(int) - 1  # channel 0 is the step + 1
        assert set(episode.segment_id[steps]) == {segment}
        before = batch.previous_action[b][batch.previous_mask[b]][..., 0].astype(int).ravel() - 1
        assert set(episode.segment_id[before]) <= {segment}
        frames = batch.proprio[b][batch.frame_mask[b]][:, 0].astype(int) - 1
        low, high = slow_limits(episode, int(start), window)
        assert np.all((frames >= low) & (frames <= high))
        for name, mask in (("action", "action_exists"), ("proprio", "frame_mask"), ("tokens", "frame_mask")):
            assert np.all(getattr(batch, name)[b][~getattr(batch, mask)[b]] == 0)
    with pytest.raises(ValueError, match="within one segment"):
        gather([prepare(episode, 0.0)], np.array([(10, 20)]), np.zeros(1, np.int64), window)


def test_every_masked_action_is_zero_and_every_loss_action_exists() -> None:
    window = WindowSpec(frames=4, tau=8, chunk=16, burn_in=2)
    source = prepare(fake_episode(0, 50), 0.0)
    batch, _ = gather([source] * 2, np.array([(0, 5), (37, 50)]), np.zeros(2, np.int64), window)
    assert np.all(batch.action[~batch.action_exists] == 0)
    assert not np.any(batch.action_mask & ~batch.action_exists)
    assert batch.action_exists.sum() > batch.action_mask.sum()


def test_padding_is_never_read_as_data() -> None:
    """NaN in every padded row, and in the memory that a batch is made in: no entry that a mask lets through has it."""
    window = WindowSpec(frames=4, tau=8, chunk=16, burn_in=2)
    rng = np.random.default_rng(0)
    for trial in range(20):
        episodes = [fake_episode(10 * trial + i, int(rng.integers(1, 70)), 2, 3, mistakes=0.2) for i in range(4)]
        clean = [prepare(episode, 0.0) for episode in episodes]
        poisoned = [prepare(episode, 0.0) for episode in episodes]
        for source in poisoned:
            for array in (source.tokens, source.proprio, source.action):
                array[-1] = np.nan
        picks = [(i, *bounds) for i in range(4) for bounds in tile(episodes[i].pairs, window, draw_phase(window, rng))]
        tiles, order = np.array([bounds for _, *bounds in picks]), [i for i, *_ in picks]
        fields = batch_fields(window, (2, 3), ACTION_DIM)
        out = {
            name: np.full((len(picks) + 2, *shape), np.nan if dtype == "f4" else 1, dtype)
            for name, (dtype, shape) in fields.items()
        }
        passes = np.zeros(len(picks), np.int64)
        batch, _ = gather([poisoned[i] for i in order], tiles, passes, window, out=out)
        expected, _ = gather([clean[i] for i in order], tiles, passes, window)
        assert np.shares_memory(batch.tokens, out["tokens"])
        assert np.all(np.isnan(out["tokens"][len(picks) :])), "rows behind the batch are not its own"
        for name, mask in (
            ("tokens", batch.frame_mask),
            ("proprio", batch.frame_mask),
            ("action", batch.action_exists),
            ("previous_action", batch.previous_mask),
        ):
            seen, right = getattr(batch, name), getattr(expected, name)
            np.testing.assert_array_equal(seen[mask], right[mask])
            assert not np.any(np.isnan(seen[mask]))
        for name in ("tokens", "proprio", "previous_action"):  # these do not even touch a padded row
            np.testing.assert_array_equal(getattr(batch, name), getattr(expected, name))
        for name in ("frame_mask", "action_exists", "action_mask", "previous_mask", "used_per_window", "token_mask"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(expected, name))


def test_batches_join_and_part_without_loss() -> None:
    window = WindowSpec()
    source = prepare(fake_episode(0, 64), 0.0)
    tiles = np.array([(0, 32), (32, 64), (3, 35)])
    batch, _ = gather([source] * 3, tiles, np.arange(3), window)
    again = concatenate([cut(batch, 0, 1), cut(batch, 1, 3)])
    assert again.tokens.flags.writeable
    for item in fields(Batch):
        np.testing.assert_array_equal(getattr(again, item.name), getattr(batch, item.name))


def test_a_tile_that_starts_between_frames_uses_its_own_pairs_only() -> None:
    window = WindowSpec(frames=3, tau=8, chunk=8, phase_step=4)
    batch, _ = gather([prepare(fake_episode(0, 64, tau=4), 0.0)], np.array([(11, 20)]), np.zeros(1, np.int64), window)
    j, n = np.nonzero(batch.action_mask[0])
    assert sorted(8 + j * window.tau + n) == list(range(11, 20))
    assert batch.used_per_window.tolist() == [9]


@pytest.mark.parametrize("tiles", [[(0, 65)], [(-1, 5)], [(5, 5)], [(0, 5), (5, 9)]])
def test_tiles_outside_their_episode_are_refused(tiles: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="expected"):
        gather([prepare(fake_episode(0, 64), 0.0)], np.array(tiles), np.zeros(len(tiles), np.int64), WindowSpec())
