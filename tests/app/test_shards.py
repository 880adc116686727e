"""The driver's view of the shards: a death is counted and waited out, never raised."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import ray

from embodichain.actors.pool import PoolCounts
from embodichain.app.shards import DIED, ShardWatch
from embodichain.contracts import WindowSpec
from embodichain.replay import ReplayConfig, fake_episode
from embodichain.replay.shard import start_shards
from embodichain.replay.writer import ReplayWriter

WINDOW = WindowSpec(frames=4, tau=8, chunk=16)


def test_a_shard_that_dies_keeps_its_last_word_until_it_is_back(ray_cluster: None, tmp_path: Path) -> None:
    shards = start_shards(ReplayConfig(shards=2, capacity_pairs=50_000), WINDOW, directory=tmp_path, num_cpus=0.0)
    ReplayWriter(shards).append([fake_episode(seed, 90, 2, 3) for seed in range(8)], 120.0)
    counts, said = PoolCounts(), list[str]()
    watch = ShardWatch(shards, counts, said.append)
    held = [part.episodes_held for part in watch.stats()]
    assert sum(held) == 8
    os.kill(ray.get(shards[0].ping.remote()).pid, signal.SIGKILL)
    until = time.monotonic() + 180
    while not counts.faults[DIED] and time.monotonic() < until:
        assert [part.episodes_held for part in watch.stats()] == held
    while not counts.recovery_s.get(DIED) and time.monotonic() < until:
        assert watch.stats()[1].episodes_held == held[1]
    assert counts.faults == {DIED: 1}
    assert 0.0 < counts.recovery_s[DIED][0] < 180.0
    assert watch.stats()[0].episodes_held == 0
    watch.save([tmp_path / "0.npz", tmp_path / "none" / "1.npz"])
    assert (tmp_path / "0.npz").exists()
    (tmp_path / "file").write_text("in the way")
    watch.save([tmp_path / "0.npz", tmp_path / "file" / "1.npz"])
    assert len(said) == 1
    assert "shard 1 could not save" in said[0]
    (tmp_path / "0.npz").write_bytes((tmp_path / "0.npz").read_bytes()[:-100])
    watch.restore([tmp_path / "0.npz", tmp_path / "never" / "1.npz"])
    assert said[1] == (
        f"{tmp_path / '0.npz'}: no whole snapshot of a shard (File is not a zip file): that shard starts without "
        "episodes; its ledger still binds it"
    )
    for shard in shards:
        ray.kill(shard)
