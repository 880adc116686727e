"""Shards, writer and client together, on a real Ray."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import ray

from embodichain.contracts import Batch, WindowSpec
from embodichain.replay import ReplayConfig, ReplayStats, concatenate, fake_episode, route
from embodichain.replay.client import ReplayClient
from embodichain.replay.shard import ReplayShard, start_shard, start_shards
from embodichain.replay.writer import ReplayWriter

WINDOW = WindowSpec(frames=4, tau=8, chunk=16, burn_in=1)


def config(**changes: Any) -> ReplayConfig:
    return ReplayConfig(**({"capacity_pairs": 100_000, "min_size_pairs": 100, "max_reuse": 3} | changes))


def count_uses(batches: list[Batch]) -> Counter[tuple[str, int]]:
    merged = concatenate(batches)
    spans = zip(merged.recipe_id, merged.start, merged.used_per_window, strict=True)
    return Counter((recipe, int(start) + k) for recipe, start, used in spans for k in range(used))


def stop(shards: list[Any]) -> None:
    for shard in shards:
        ray.kill(shard)


def test_routes_are_stable_and_spread() -> None:
    ids = [fake_episode(seed, 1, 1, 1).recipe.id for seed in range(400)]
    counts = Counter(route(recipe_id, 4) for recipe_id in ids)
    assert min(counts.values()) > 60
    assert [route(i, 4) for i in ids] == [route(i, 4) for i in ids]
    with pytest.raises(ValueError, match="n_shards=0"):
        route(ids[0], 0)


def test_a_shard_tells_a_producer_to_retry_instead_of_hanging() -> None:
    shard: Any = ReplayShard(0, config(shards=1, samples_per_insert=2.0, error_buffer=100.0, min_size_pairs=50), WINDOW)
    episodes = [fake_episode(seed, 60, 2, 3) for seed in range(6)]
    began = time.monotonic()
    reply = shard.append(episodes, timeout_s=0.2)
    assert 0.2 <= time.monotonic() - began < 2.0
    assert len(reply.accepted) == 2
    assert reply.retry == tuple(episode.recipe.id for episode in episodes[2:])
    assert shard.append(episodes[:2], timeout_s=0.0).duplicate == reply.accepted
    empty: Any = ReplayShard(1, config(), WINDOW)
    assert empty.sample(4, timeout_s=0.05) is None


def test_all_shards_feed_full_batches_until_the_bound_blocks(ray_cluster: None) -> None:
    shards = start_shards(config(min_size_pairs=2), WINDOW, num_cpus=0.1)
    writer, client = ReplayWriter(shards), ReplayClient(shards, WINDOW, 16)
    assert client.next_batch(timeout_s=0.3) is None
    episodes = [fake_episode(seed, 60 + seed, 2, 3) for seed in range(12)]
    report = writer.append(episodes)
    assert (report.accepted, report.retry) == (12, [])
    assert writer.append(episodes).duplicate == 12
    batches, fresh, uses, waited = [], 0, 0, 0.0
    while (item := client.next_batch(timeout_s=3.0)) is not None:
        batch, info = item
        assert batch.size == 16
        assert batch.tokens.flags.writeable
        batches.append(batch)
        fresh, uses, waited = fresh + info.fresh_pairs, uses + info.uses, waited + info.stall_s
    assert set(concatenate(batches).shard) == {0, 1}
    counted, stats = count_uses(batches), ReplayStats.merge(ray.get([s.stats.remote() for s in shards]))
    assert max(counted.values()) == stats.reuse_max == 3
    assert stats.uses == 3 * sum(e.pairs for e in episodes)
    assert (fresh, uses) == (len(counted), counted.total())
    assert stats.uses - uses == sum(batch.pair_uses for batch in client.waiting)
    assert 0.3 <= waited <= client.stall_s
    stop(shards)


def test_a_learner_goes_on_without_a_dead_shard_and_finds_its_successor_by_name(
    ray_cluster: None, tmp_path: Path
) -> None:
    shards = start_shards(config(max_reuse=1000), WINDOW, directory=tmp_path, name="client-test")
    ReplayWriter(shards).append([fake_episode(seed, 100, 2, 3) for seed in range(12)])
    client = ReplayClient(["client-test-0", "client-test-1"], WINDOW, 16, sample_timeout_s=0.5, retry_s=0.2)
    assert client.next_batch() is not None
    ray.kill(shards[0])  # for good
    after = [client.next_batch() for _ in range(30)]
    assert all(item is not None for item in after)
    assert set(after[-1][0].shard) == {1}  # type: ignore[index]
    assert client.faults >= 1
    shards[0] = start_shard(0, config(max_reuse=1000), WINDOW, name="client-test")
    ReplayWriter(shards).append([fake_episode(seed, 100, 2, 3) for seed in range(50, 70)])
    until = time.monotonic() + 10
    while time.monotonic() < until:
        item = client.next_batch()
        if item is not None and set(item[0].shard) == {0, 1}:
            break
    else:
        pytest.fail("the new shard never delivered")
    stop(shards)


def test_priorities_reach_the_shards_that_hold_the_episodes(ray_cluster: None) -> None:
    shards = start_shards(config(selector="prioritised", max_reuse=1000, min_size_pairs=2), WINDOW)
    writer, episodes = ReplayWriter(shards), [fake_episode(seed, 100, 2, 3) for seed in range(8)]
    writer.append(episodes)
    chosen = {next(e.recipe.id for e in episodes if route(e.recipe.id, 2) == shard) for shard in (0, 1)}
    assert writer.update_priorities({e.recipe.id: float(e.recipe.id in chosen) for e in episodes}) == 8
    assert writer.update_priorities({fake_episode(99, 20).recipe.id: 1.0}) == 0
    client = ReplayClient(shards, WINDOW, 16)
    batches = [client.next_batch() for _ in range(5)]
    assert {name for item in batches for name in item[0].recipe_id} == chosen  # type: ignore[index]
    with pytest.raises(ValueError, match="priority of"):
        writer.update_priorities({episodes[0].recipe.id: -1.0})
    stop(shards)


def test_a_client_works_inside_another_ray_process(ray_cluster: None) -> None:
    shards = start_shards(config(), WINDOW)
    ReplayWriter(shards).append([fake_episode(seed, 100, 2, 3) for seed in range(12)])

    @ray.remote(num_cpus=0.1)
    def learner(handles: list[Any]) -> int:
        item = ReplayClient(handles, WINDOW, 8).next_batch()
        return item[0].size if item is not None else 0

    assert ray.get(learner.remote(shards)) == 8
    with pytest.raises(ValueError, match=r"expected .* with tau=4"):
        ReplayClient(shards, WindowSpec(frames=4, tau=4), 8).next_batch()
    stop(shards)
