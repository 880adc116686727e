"""The driver's view of the shards: a death is counted and waited out, never raised."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from embodichain.actors.pool import PoolCounts
from embodichain.app.shards import DIED, HUNG, ShardWatch
from embodichain.contracts import WindowSpec
from embodichain.replay import ReplayConfig, fake_episode
from embodichain.replay.shard import start_shards
from embodichain.replay.writer import ReplayWriter

WINDOW = WindowSpec(frames=4, tau=8, chunk=16)


def test_a_shard_that_dies_keeps_its_last_word_until_it_is_back(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        watch.expect(False)  # said to one that may not be there
        assert watch.stats()[1].episodes_held == held[1]
    assert counts.faults == {DIED: 1}
    assert 0.0 < counts.recovery_s[DIED][0] < 180.0
    assert watch.stats()[0].episodes_held == 0
    stopped = ray.get(shards[1].ping.remote()).pid
    os.kill(stopped, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr("embodichain.app.shards.ANSWER_S", 2.0)
        assert watch.stats()[1].episodes_held == held[1]
    os.kill(stopped, signal.SIGCONT)
    assert counts.faults == {DIED: 1, HUNG: 1}
    assert watch.stats()[1].episodes_held == held[1]
    assert counts.recovery_s[HUNG][0] > 0.0
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


def test_a_shard_of_a_fixed_set_that_dies_is_filled_again(ray_cluster: None, tmp_path: Path) -> None:
    config = ReplayConfig(shards=2, capacity_pairs=1_000, min_size_pairs=100, mode="static")
    shards = start_shards(config, WINDOW, directory=tmp_path, num_cpus=0.0)
    counts, said = PoolCounts(), list[str]()
    watch = ShardWatch(shards, counts, said.append)
    ReplayWriter(shards).append([fake_episode(seed, 90, 2, 3) for seed in range(20)], 120.0)
    full, paths = watch.stats(), [tmp_path / f"{index}.npz" for index in range(2)]
    assert all(part.complete_sets for part in full)
    watch.fix(paths)
    for shard in shards:  # of all of them nobody is left to go on with
        os.kill(ray.get(shard.ping.remote()).pid, signal.SIGKILL)
    for index, shard in enumerate(shards):
        _until_back(shard)
        with pytest.raises(FileExistsError, match="of the fixed set"):
            ray.get(shard.save.remote(str(paths[index])))
    again = watch.stats()
    assert [(part.pairs_held, part.complete_sets) for part in again] == [(part.pairs_held, 1) for part in full]
    assert said == [f"shard {index} had lost its part of the fixed set: restored" for index in range(2)]
    assert ray.get(shards[0].sample.remote(4)).batch.size == 4
    watch.save(paths)
    paths[1].unlink()
    os.kill(ray.get(shards[1].ping.remote()).pid, signal.SIGKILL)
    _until_back(shards[1])
    assert [part.episodes_held > 0 for part in watch.stats()] == [True, False]
    assert "shard 1 has lost its part of the fixed set, which cannot be restored" in said[2]
    watch.stats()
    assert len(said) == 3
    for shard in shards:
        ray.kill(shard)


def _until_back(shard: Any) -> None:
    """Until a killed shard answers again, unseen by whoever watches it."""
    until = time.monotonic() + 180
    while time.monotonic() < until:
        try:
            ray.get(shard.ping.remote())
        except RayActorError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError("the shard did not come back")
