"""The pool with an archive behind it: every episode once, damaged ones never, and an end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from embodichain.actors.config import PoolConfig
from embodichain.actors.flight import start_recorder
from embodichain.actors.pool import ActorPool
from embodichain.actors.quarantine import Quarantine
from embodichain.actors.reader import ArchiveReader
from embodichain.actors.worker import CALLS_AT_ONCE, SimActor, WorkReport
from embodichain.app.archiving import ArchiveStream
from embodichain.archive import Archive, ArchiveWriter
from embodichain.contracts import Episode, WindowSpec, seed_range
from embodichain.replay import ReplayConfig, ReplayStats, fake_episode
from embodichain.replay.shard import start_shards
from embodichain.replay.writer import ReplayWriter, WriteReport

WINDOW = WindowSpec(frames=4, tau=8, chunk=16)


def build(place: str, shards: list) -> ArchiveReader:
    return ArchiveReader(Archive.open(place), ReplayWriter(shards))


def read_all(place: str, shards: list, quarantine: Path) -> Counter[str]:
    """Outcomes of one start of a run: `accepted`, or the reason why not."""
    recorder = start_recorder()
    stream = ArchiveStream(recipes=[entry.recipe for entry in Archive.open(place).entries()])

    def start_actor() -> Any:
        actor = ray.remote(num_cpus=0.1)(SimActor).options(max_concurrency=CALLS_AT_ONCE)
        return actor.remote(partial(build, place, shards))

    pool = ActorPool(
        PoolConfig(count=1, cpus=0.1), start_actor, stream.next, lambda: True, recorder, Quarantine(quarantine)
    )
    reports: list[WorkReport] = []
    stop = time.monotonic() + 60
    while not pool.exhausted and time.monotonic() < stop:
        reports += pool.poll(0.2)
    assert pool.exhausted
    pool.stop()
    return Counter(report.reasons[0] if report.reasons else "accepted" for report in reports)


def test_archived_episodes_stream_in_once_per_run_and_damaged_ones_never(ray_cluster: None, tmp_path: Path) -> None:
    archive = Archive.create(str(tmp_path / "a"))
    with ArchiveWriter(archive, 0) as writer:
        for seed in range(12):
            writer.append(fake_episode(seed_range("train").at(seed), 40, 2, 3))
    victim = archive.entries()[5]
    chunk = archive.folder(victim) / "proprio" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    shards = start_shards(ReplayConfig(shards=2, max_reuse=2, min_size_pairs=2), WINDOW, directory=tmp_path)
    place = str(tmp_path / "a")
    assert read_all(place, shards, tmp_path / "q") == {"accepted": 11, "damaged": 1}
    assert read_all(place, shards, tmp_path / "q") == {"duplicate": 11, "damaged": 1}  # a resumed run begins again
    stats = ReplayStats.merge(ray.get([shard.stats.remote() for shard in shards]))
    assert (stats.episodes_inserted, stats.pairs_inserted) == (11, 440)
    for shard in shards:
        ray.kill(shard)


def test_an_episode_that_is_kept_for_evaluation_never_reaches_the_replay(tmp_path: Path) -> None:
    archive, taken = Archive.create(str(tmp_path / "a")), list[Episode]()

    class Writer(ReplayWriter):
        def append(self, episodes: Iterable[Episode], timeout_s: float = 10.0) -> WriteReport:
            taken.extend(episodes)
            return WriteReport()

    with ArchiveWriter(archive, 0) as writer:
        for seed in (seed_range("train").at(0), seed_range("eval").at(0)):
            writer.append(fake_episode(seed, 40, 2, 3))
    reader = ArchiveReader(archive, Writer([None]))
    good, bad = (entry.recipe for entry in archive.entries())
    with pytest.raises(ValueError, match=f"seed={bad.seed}, domain=default: training never draws it"):
        reader.produce(bad)
    assert not taken
    assert reader.produce(good).accepted
    assert [episode.recipe for episode in taken] == [good]
