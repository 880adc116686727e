"""Shards, writer and client together, on a real Ray."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

from embodichain.contracts import Batch, WindowSpec
from embodichain.replay import ReplayConfig, ReplayStats, SampleReply, concatenate, cut, fake_episode, route
from embodichain.replay.client import ReplayClient
from embodichain.replay.links import LinkLostError, Part
from embodichain.replay.serving import Endpoint
from embodichain.replay.shard import ReplayShard, start_shard, start_shards
from embodichain.replay.writer import ReplayWriter

WINDOW = WindowSpec(frames=4, tau=8, chunk=16, burn_in=1)
ROOT = Path(__file__).parents[2]
TWO_NODES = """
import ray
from ray.cluster_utils import Cluster
from embodichain.replay import ReplayConfig, fake_episode
from embodichain.replay.client import ReplayClient
from embodichain.replay.shard import start_shard
from embodichain.replay.writer import ReplayWriter
from tests.replay.test_client import WINDOW

cluster = Cluster(
    initialize_head=True, head_node_args={"num_cpus": 1, "labels": {"place": "near"}, "include_dashboard": False}
)
cluster.add_node(num_cpus=1, labels={"place": "far"})
ray.init(address=cluster.address, log_to_driver=False)
config = ReplayConfig(capacity_pairs=100_000, min_size_pairs=2, max_reuse=1000)
shards = [start_shard(i, config, WINDOW, num_cpus=0, labels={"place": p}) for i, p in enumerate(("near", "far"))]
assert ReplayWriter(shards).append([fake_episode(seed, 60, 2, 3) for seed in range(12)], 60.0).accepted == 12
client = ReplayClient(shards, WINDOW, 16)
shares = [0, 0]
for _ in range(20):
    batch = client.next_batch(30.0)[0]
    for index in range(2):
        shares[index] += int((batch.shard == index).sum())
assert client.transports == ["shared", "tcp"], client.transports
assert min(shares) > 40, shares
try:
    strict = ReplayClient(shards, WINDOW, 16, transport="shared")
    while strict.next_batch(30.0) is not None:
        pass
except ValueError as error:
    assert "a shard is on another node" in str(error), error
    print("both ways")
ray.shutdown()
cluster.shutdown()
"""


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
    until = time.monotonic() + 20
    while not client.faults and time.monotonic() < until:
        assert client.next_batch() is not None
    assert client.faults >= 1
    after = [client.next_batch() for _ in range(10)]
    assert set(after[-1][0].shard) == {1}  # type: ignore[index]
    shards[0] = start_shard(0, config(max_reuse=1000), WINDOW, name="client-test")
    ReplayWriter(shards).append([fake_episode(seed, 100, 2, 3) for seed in range(50, 70)])
    until = time.monotonic() + 10
    while time.monotonic() < until:
        item = client.next_batch()
        if item is not None and 0 in item[0].shard:
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
    seen: set[str] = set()
    until = time.monotonic() + 20
    while seen != chosen and time.monotonic() < until:
        item = client.next_batch()
        assert item is not None
        seen |= set(item[0].recipe_id)
        assert seen <= chosen
    assert seen == chosen
    with pytest.raises(ValueError, match="priority of"):
        writer.update_priorities({episodes[0].recipe.id: -1.0})
    stop(shards)


@pytest.mark.parametrize(("transport", "kind"), [("auto", "shared"), ("tcp", "tcp"), ("ray", "ray")])
def test_both_ways_give_every_pair_its_uses_and_no_more(ray_cluster: None, transport: str, kind: str) -> None:
    shards = start_shards(config(min_size_pairs=2, max_reuse=2), WINDOW)
    episodes = [fake_episode(seed, 60 + seed, 2, 3) for seed in range(12)]
    ReplayWriter(shards).append(episodes)
    client = ReplayClient(shards, WINDOW, 16, transport=transport, sample_timeout_s=0.5)
    batches: list[Batch] = []
    while (item := client.next_batch(timeout_s=2.0)) is not None:
        batches.append(item[0])
    assert client.transports == [kind, kind]
    kept = concatenate([*batches, *client.waiting])
    assert kept.pair_uses == 2 * sum(episode.pairs for episode in episodes)
    assert set(count_uses([kept]).values()) == {2}
    by_id = {episode.recipe.id: episode for episode in episodes}
    for b, recipe_id in enumerate(kept.recipe_id):
        seen, step = kept.action_mask[b], kept.action[b, ..., 0] - 1  # channel 0 tells the step
        np.testing.assert_array_equal(kept.action[b][seen], by_id[recipe_id].action[step[seen].astype(int)])
    stop(shards)


def test_a_killed_shard_is_reached_through_shared_memory_again(ray_cluster: None, tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    shards = start_shards(config(max_reuse=1000), WINDOW, directory=tmp_path)
    writer = ReplayWriter(shards)
    writer.append([fake_episode(seed, 100, 2, 3) for seed in range(12)])
    client = ReplayClient(shards, WINDOW, 16, sample_timeout_s=0.5, retry_s=0.2)
    assert client.next_batch() is not None
    os.kill(ray.get(shards[0].ping.remote()).pid, signal.SIGKILL)
    until = time.monotonic() + 20
    while client.faults == 0 and time.monotonic() < until:
        assert client.next_batch() is not None
    assert client.faults >= 1
    writer.append([fake_episode(seed, 100, 2, 3) for seed in range(50, 70)], 30.0)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        item = client.next_batch()
        if item is not None and 0 in item[0].shard:
            break
    else:
        pytest.fail("the new shard never delivered")
    assert client.transports == ["shared", "shared"]
    client.close()
    stop(shards)
    assert not [name for name in set(os.listdir("/dev/shm")) - before if "embodichain" in name]


def test_on_two_nodes_each_shard_is_reached_the_way_it_can_be() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO_NODES],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"},
    )
    assert "both ways" in done.stdout, done.stdout + done.stderr


def test_a_shard_that_tcp_does_not_reach_is_asked_through_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    here = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: here)
    silent = Endpoint(node_id="there", address="", key="00", host="", port=0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]  # nobody listens there any more
    refused = replace(silent, host="127.0.0.1", port=port)
    auto, tcp = (ReplayClient([object()], WINDOW, 8, transport=transport) for transport in ("auto", "tcp"))
    for endpoint in (silent, refused):
        assert auto._choose(endpoint, object()).kind == "ray"
    with pytest.raises(ValueError, match=r"replay\.transport=tcp: a shard does not listen"):
        tcp._choose(silent, object())
    with pytest.raises(LinkLostError):  # the shard may be restarting: asked again later
        tcp._choose(refused, object())


def test_windows_that_changed_while_they_were_copied_do_not_count() -> None:
    shard: Any = ReplayShard(0, config(shards=1), WINDOW)
    shard.append([fake_episode(seed, 60, 2, 3) for seed in range(6)])
    client = ReplayClient([object()], WINDOW, 8)
    parts: list[SampleReply] = [shard.sample(5) for _ in range(4)]
    for reply, intact in zip(parts, (True, False, True, False), strict=True):
        client._add(Part(reply=reply, intact=lambda intact=intact: intact))  # type: ignore[misc]
    assert (client.buffered, client.overwritten) == (10, 2)
    good = concatenate([parts[0].batch, parts[2].batch])
    full, rest = client.waiting
    for name in ("tokens", "action", "start"):
        np.testing.assert_array_equal(getattr(full, name), getattr(cut(good, 0, 8), name))
        np.testing.assert_array_equal(getattr(rest, name), getattr(cut(good, 8, 10), name))
    assert (full.recipe_id, rest.recipe_id) == (good.recipe_id[:8], good.recipe_id[8:])


def test_unknown_transports_are_refused() -> None:
    with pytest.raises(ValueError, match=r"replay.transport='udp': expected one of auto, shared, tcp, ray"):
        config(transport="udp")
    with pytest.raises(ValueError, match="transport='udp'"):
        ReplayClient([object()], WINDOW, 8, transport="udp")


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


def test_batches_that_are_kept_stay_as_they_were(ray_cluster: None) -> None:
    """Some lie in the shards' rings, the later ones are copies; none changes while the shards go on."""
    shards = start_shards(config(max_reuse=1000), WINDOW)
    ReplayWriter(shards).append([fake_episode(seed, 100, 2, 3) for seed in range(12)])
    client = ReplayClient(shards, WINDOW, 16)
    kept: list[tuple[Batch, np.ndarray, np.ndarray]] = []
    for _ in range(40):
        item = client.next_batch()
        assert item is not None
        kept.append((item[0], item[0].tokens.copy(), item[0].action.copy()))
    for batch, tokens, action in kept:
        np.testing.assert_array_equal(batch.tokens, tokens)
        np.testing.assert_array_equal(batch.action, action)
    assert not any(np.shares_memory(a[0].tokens, b[0].tokens) for a, b in itertools.pairwise(kept))
    in_rings = [batch.tokens.base is not None and not batch.tokens.base.flags.owndata for batch, _, _ in kept]
    assert 1 <= sum(in_rings) <= 4
    assert client.overwritten == 0
    stop(shards)
