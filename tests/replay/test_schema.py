from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embodichain.contracts import ACTION_DIM, Episode, WindowSpec
from embodichain.replay import ReplayConfig, ShardStore, fake_episode

WINDOW = WindowSpec(frames=3, tau=4, chunk=8)
GOOD = fake_episode(1, 20, 4, 41)
IMAGE = fake_episode(2, 20, 4, 41, tau=4)


def changed(name: str, array: Any) -> Episode:
    return replace(GOOD, **{name: array})


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (changed("action", GOOD.action.astype(np.float64)), "episode.action: float64"),
        (changed("action", GOOD.action[:, : ACTION_DIM - 1]), f"episode.action: float32[20, {ACTION_DIM - 1}]"),
        (changed("action_valid", GOOD.action_valid.astype(np.int8)), "episode.action_valid: int8"),
        (changed("action_valid", GOOD.action_valid[:-1]), "episode.action_valid: bool[29]"),
        (changed("proprio", GOOD.proprio.astype(np.float16)), "episode.proprio: float16"),
        (changed("proprio", GOOD.proprio[:-1]), "episode.proprio: float32[20, 30]"),
        (changed("proprio", GOOD.proprio[:, :-1]), "episode.proprio=29: expected 30"),
        (changed("sim_state", GOOD.sim_state.astype(np.float64)), "episode.sim_state: float64"),
        (changed("segment_id", GOOD.segment_id.astype(np.int32)), "episode.segment_id: int32"),
        (changed("segment_id", GOOD.segment_id[:-1]), "episode.segment_id: int16[19]"),
        (changed("label_valid", np.ones(20, np.int8)), "episode.label_valid: int8"),
        (changed("tokens", None), "episode.tokens: none"),
        (changed("tokens", np.asarray(GOOD.tokens, np.float16)), "episode.tokens: float16"),
        (changed("tokens", np.asarray(GOOD.tokens)[:, 0]), "episode.tokens: float32[21, 41]"),
        (changed("token_mask", np.ones(5, bool)), "episode.token_mask: bool[5]"),
        (changed("token_mask", np.ones(4, np.uint8)), "episode.token_mask: uint8[4]"),
        (changed("token_mask", None), "episode.token_mask: none"),
        (fake_episode(1, 20, 5, 41), "episode.tokens=(5, 41): expected (4, 41)"),
        (fake_episode(1, 20, 4, 40), "episode.tokens=(4, 40): expected (4, 41)"),
        (IMAGE, "episode.token_dtype='float16': expected 'float32'"),
        (replace(GOOD, encoder_id="dinov3@other"), "episode.encoder_id='dinov3@other': expected 'fake'"),
        (replace(GOOD, control_hz=10.0), "episode.control_hz=10.0: expected 20.0"),
        (replace(GOOD, schema_version=99), "episode.schema_version=99"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused_by_field_and_leaves_nothing_behind(bad: Episode, field: str) -> None:
    store = ShardStore(ReplayConfig(shards=1, min_size_pairs=1).share(WINDOW), WINDOW)
    store.append(fake_episode(0, 20, 4, 41))
    before = store.stats()
    with pytest.raises(ValueError, match="episode") as refusal:
        store.append(bad)
    assert str(refusal.value).startswith(field)
    assert store.stats() == before
