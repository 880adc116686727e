"""Kill -9 of a shard's process while producers append and a learner samples: the bound must hold."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import ray

from embodichain.contracts import WindowSpec
from embodichain.replay import ReplayConfig, ReplayStats, fake_episode, route
from embodichain.replay.client import ReplayClient
from embodichain.replay.shard import start_shards
from embodichain.replay.writer import ReplayWriter

WINDOW = WindowSpec(frames=4, tau=8, chunk=16)
BOUND = 6


def test_a_killed_shard_comes_back_with_its_ledger_and_the_bound_holds(ray_cluster: None, tmp_path: Path) -> None:
    config = ReplayConfig(shards=2, capacity_pairs=50_000, max_reuse=BOUND, min_size_pairs=2)
    shards = start_shards(config, WINDOW, directory=tmp_path)
    writer = ReplayWriter(shards)
    client = ReplayClient(shards, WINDOW, 16, sample_timeout_s=0.5, retry_s=0.2)
    episodes = [fake_episode(seed, 90 + seed, 2, 3) for seed in range(24)]
    assert writer.append(episodes).accepted == 24
    uses: Counter[tuple[str, int]] = Counter()

    def take(batches: int, timeout_s: float) -> int:
        for taken in range(batches):
            item = client.next_batch(timeout_s)
            if item is None:
                return taken
            spans = zip(item[0].recipe_id, item[0].start, item[0].used_per_window, strict=True)
            uses.update((recipe, int(start) + k) for recipe, start, used in spans for k in range(used))
        return batches

    assert take(10, 5.0) == 10
    victim = ray.get(shards[0].ping.remote())
    os.kill(victim.pid, signal.SIGKILL)
    killed = time.monotonic()
    assert take(10, 5.0) == 10, "the learner did not go on with the shard that lives"
    report = writer.append(episodes, timeout_s=30.0)  # repeats: the dead shard's are new to it, the others known
    back = ray.get(shards[0].ping.remote())
    assert back.pid != victim.pid
    assert back.passes_recovered > 0
    assert not report.retry
    lost = [episode for episode in episodes if route(episode.recipe.id, 2) == 0]
    assert 0 < report.accepted <= len(lost)
    while take(50, 2.0):
        pass
    assert max(uses.values()) == BOUND
    untouched = [e for e in episodes if route(e.recipe.id, 2) == 1]
    delivered = sum(uses[e.recipe.id, t] for e in untouched for t in range(e.pairs))
    held_back = sum(int(batch.used_per_window[batch.shard == 1].sum()) for batch in client.waiting)
    assert delivered + held_back == BOUND * sum(e.pairs for e in untouched)
    stats = ReplayStats.merge(ray.get([shard.stats.remote() for shard in shards]))
    assert stats.reuse_max <= BOUND
    assert stats.assumed_uses > 0
    assert client.faults >= 1
    print(f"whole again {time.monotonic() - killed:.1f} s after the kill")
    for shard in shards:
        ray.kill(shard)
