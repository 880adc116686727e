"""The fixed held-out set: windows cut once from seeds that training cannot draw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from embodichain.contracts import Batch, Episode, Recipe, WindowSpec, seed_range
from embodichain.encoders import Encoder
from embodichain.replay.gather import gather, prepare
from embodichain.replay.tiling import tile
from embodichain.rollout import RolloutOptions, make_episode
from tasks.session import TaskSession


def make_heldout_episodes(
    session: TaskSession, encoder: Encoder, tasks: Iterable[str], domain: str, per_task: int, tau: int, sim_hash: str
) -> list[Episode]:
    """The first `per_task` accepted episodes of each task from the `heldout` seed range.

    Raises `RuntimeError` if a task's expert solves fewer than half of the seeds tried.
    """
    episodes = []
    for task in tasks:
        kept, index = 0, 0
        while kept < per_task:
            if index >= 2 * per_task + 10:
                raise RuntimeError(f"the expert solved only {kept} of {index} held-out seeds of {task!r}")
            recipe = Recipe(task=task, seed=seed_range("heldout").at(index), domain=domain, sim_hash=sim_hash)
            episode, verdict, _ = make_episode(recipe, session, encoder, RolloutOptions(tau=tau))
            index += 1
            if episode is not None and verdict.accepted:
                episodes.append(episode)
                kept += 1
    return episodes


def heldout_batch(episodes: list[Episode], window: WindowSpec) -> Batch:
    """Every episode tiled once at phase 0, as one batch, whichever windows training sees (`window.mode`)."""
    sources, tiles, window = [], [], replace(window, mode="episode")
    for episode in episodes:
        cuts = tile(episode.pairs, window, 0)
        sources.extend([prepare(episode, 0.0)] * len(cuts))
        tiles.append(cuts)
    batch, _ = gather(sources, np.concatenate(tiles), np.zeros(len(sources), dtype=np.int64), window)
    return batch
