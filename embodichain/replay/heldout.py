"""Windows to measure on: cut once, never counted, the same ones for every checkpoint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from embodichain.contracts import Batch, Episode, WindowSpec
from embodichain.replay.gather import gather, prepare
from embodichain.replay.tiling import tile


def heldout_batch(episodes: list[Episode], window: WindowSpec) -> Batch:
    """Every episode tiled once at phase 0, as one batch, whichever windows training sees (`window.mode`)."""
    sources, tiles, window = [], [], replace(window, mode="episode")
    for episode in episodes:
        cuts = tile(episode.pairs, window, 0)
        sources.extend([prepare(episode, 0.0)] * len(cuts))
        tiles.append(cuts)
    batch, _ = gather(sources, np.concatenate(tiles), np.zeros(len(sources), dtype=np.int64), window)
    return batch
