"""A dataset as the replay's fixed set: its tokens are the encoder's of its frames, its actions those of its rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embodichain.contracts import WindowSpec
from embodichain.encoders import StateEncoder
from embodichain.encoders.dinov3 import DINOv3Encoder
from embodichain.export import encoded, read, write
from embodichain.replay import AppendStatus, ReplayConfig, ShardStore

TAU, SIZE = 4, (32, 48)
WINDOW = WindowSpec(frames=2, tau=TAU, chunk=6, burn_in=1, phase_step=TAU)


@pytest.fixture(scope="module")
def encoder() -> DINOv3Encoder:
    return DINOv3Encoder(weights="random:tiny", views=2, height=SIZE[0], width=SIZE[1])


def test_windows_of_an_imported_dataset(make: Callable, tmp_path: Path, encoder: DINOv3Encoder) -> None:
    originals = {e.recipe.id: e for e in (make(seed, 24 + 4 * seed, views=2) for seed in range(3))}
    write(tmp_path / "set", originals.values(), cameras=("front", "top"))
    decoded = {e.recipe.id: e.rgb for e in read(tmp_path / "set", tau=TAU, size=SIZE)}
    tokens = {recipe: encoder.encode_rgb(frames) for recipe, frames in decoded.items() if frames is not None}
    config = ReplayConfig(shards=1, mode="static", capacity_pairs=10_000, min_size_pairs=1, max_reuse=1)
    store = ShardStore(config.share(WINDOW), WINDOW, seed=3)
    source = encoded(read(tmp_path / "set", tau=TAU, size=SIZE), encoder)
    assert [store.append(episode) for episode in source] == [AppendStatus.ACCEPTED] * 3
    drawn, passes = 0, set()
    for _ in range(12):
        reply = store.sample(8)
        assert reply is not None
        batch = reply.batch
        passes |= set(batch.pass_index.tolist())
        for b, (recipe, start) in enumerate(zip(batch.recipe_id, batch.start, strict=True)):
            original = originals[recipe]
            assert batch.instruction[b] == original.instruction
            assert np.array_equal(batch.action_valid[b], original.action_valid)
            for k in np.flatnonzero(batch.frame_mask[b]):
                step = int(start) + (int(k) - WINDOW.burn_in) * TAU
                assert np.array_equal(batch.proprio[b, k], original.proprio[step])
                assert np.array_equal(batch.tokens[b, k], tokens[recipe][step // TAU])
                if k < WINDOW.frames + WINDOW.burn_in:
                    there = batch.action_exists[b, k]
                    steps = step + np.flatnonzero(there)
                    assert np.array_equal(batch.action[b, k][there], original.action[steps])
                    used = step + np.flatnonzero(batch.action_mask[b, k])
                    assert original.label_valid[used].all()
                drawn += 1
    assert drawn > 200
    assert max(passes) > 1  # a fixed set knows no bound


def test_state_tokens_cannot_be_made_from_a_dataset(make: Callable, tmp_path: Path) -> None:
    write(tmp_path / "set", [make(0, 8)])
    with pytest.raises(
        ValueError, match=r"simulator's state, which a dataset does not hold; expected encoder.name=dinov3"
    ):
        encoded(read(tmp_path / "set"), StateEncoder(max_objects=1, max_goals=1))


def test_a_dataset_without_videos_is_refused(make: Callable, tmp_path: Path, encoder: DINOv3Encoder) -> None:
    write(tmp_path / "set", [make(0, 8, video=False)])
    with pytest.raises(ValueError, match="no frames, expected a dataset with videos"):
        next(encoded(read(tmp_path / "set"), encoder))
