"""The recount of `embodichain bench reuse`: it counts what masks say, and sees a bound that does not hold."""

from __future__ import annotations

from collections import Counter

import numpy as np

from benchmarks.reuse import WINDOW, PairCounts, make_episode, row
from embodichain.replay import ReplayConfig, ShardStore


def test_the_recount_counts_pairs_once_per_window_and_sees_a_violation() -> None:
    config = ReplayConfig(shards=1, min_size_pairs=1, max_reuse=3)
    store, counts, slow = ShardStore(config.share(WINDOW), WINDOW, seed=2), PairCounts(), Counter[tuple[str, int]]()
    for seed in range(5):
        store.append(make_episode(seed))
    batches = []
    while (reply := store.sample(7)) is not None:
        batches.append(reply.batch)
        counts.add(reply.batch)
        for b, name in enumerate(reply.batch.recipe_id):
            steps = set()
            for j in range(WINDOW.frames):
                for n in range(WINDOW.chunk):
                    if reply.batch.action_mask[b, j, n]:
                        steps.add(int(reply.batch.start[b]) + j * WINDOW.tau + n)
            slow.update((name, step) for step in steps)
    fast = {(name, int(t)): int(uses[t]) for name, uses in counts.uses.items() for t in np.flatnonzero(uses)}
    assert fast == slow
    assert set(fast.values()) == {3}
    stats = store.stats()
    kept = row(counts, stats, 5, 0, 3, 1.0)
    assert (kept["violations"], kept["reuse_max"], kept["pair_uses"]) == (0, 3, stats.uses)
    counts.add(batches[0])  # as a shard that forgot what it had delivered would do
    broken = row(counts, stats, 5, 0, 3, 1.0)
    assert broken["violations"] == batches[0].pair_uses > 0
