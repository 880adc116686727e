"""Archiving beside a run: it keeps every accepted episode once, and gives up loudly when the disk is full."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embodichain.archive import Archive, ArchiveSink, ArchiveWriter, Location
from embodichain.contracts import WindowSpec
from embodichain.replay import ReplayConfig, fake_episode
from embodichain.replay.shard import ReplayShard

WINDOW = WindowSpec(frames=3, tau=4, chunk=8)
CONFIG = ReplayConfig(shards=1, capacity_pairs=10_000, min_size_pairs=1, max_reuse=2)


def make_shard(**kwargs: Any) -> Any:
    """A shard without Ray; its methods' types are Ray's."""
    return ReplayShard(0, CONFIG, WINDOW, **kwargs)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], check=False).returncode:
        pytest.skip("this machine does not let a tmpfs be mounted")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_shard_keeps_what_it_takes_even_if_it_died_between_the_two(tmp_path: Path) -> None:
    archive = Archive.create(str(tmp_path / "a"))
    ledger = tmp_path / "ledger.jsonl"
    bare = make_shard(ledger_path=ledger)  # takes it, uses it up, dies before it is kept
    bare.append([fake_episode(0, 20)])
    while bare.store.sample(4) is not None:
        pass
    shard = make_shard(ledger_path=ledger, archive=archive)
    reply = shard.append([fake_episode(seed, 20) for seed in range(3)])
    assert (len(reply.accepted), len(reply.duplicate)) == (2, 1)
    shard.append([fake_episode(1, 20)])
    assert [entry.recipe.seed for entry in archive.entries()] == [0, 1, 2]
    status = shard.archived()
    assert (status.episodes, status.error) == (3, "")
    assert status.nbytes == sum(entry.nbytes for entry in archive.entries())


def test_a_full_disk_ends_archiving_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive.create(str(tmp_path / "a"))
    shard = make_shard(archive=archive)
    shard.append([fake_episode(0, 20)])

    def full(self: Location, files: dict[str, bytes]) -> None:
        (self / "zarr.json").write_bytes(files["zarr.json"][:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Location, "write_files", full)
        assert len(shard.append([fake_episode(1, 20)]).accepted) == 1
    assert len(shard.append([fake_episode(2, 20)]).accepted) == 1  # taken, but no longer kept
    assert "No space left on device" in shard.archived().error
    assert str(tmp_path / "a") in shard.archived().error
    assert shard.store.stats().episodes_held == 3
    assert [entry.recipe.seed for entry in archive.entries()] == [0]
    assert archive.leftovers() == []
    ArchiveWriter(archive, 0).close()  # it has let the shard go


@pytest.mark.parametrize(("tokens", "channels"), [(4, 12), (2, 384)])
def test_a_disk_that_fills_up_for_real_keeps_what_was_committed(small_disk: Path, tokens: int, channels: int) -> None:
    archive = Archive.create(str(small_disk / "a"))
    shard, taken = make_shard(archive=archive), 0
    while not shard.archived().error:
        taken += len(shard.append([fake_episode(taken, 60, tokens, channels)]).accepted)
        assert taken < 100, "the disk did not fill up"
    assert "No space left on device" in shard.archived().error
    kept = archive.entries()
    assert [entry.recipe.seed for entry in kept] == list(range(taken - 1))
    assert archive.verify() == []
    assert shard.store.stats().episodes_held == taken


def test_an_archive_that_another_run_writes_is_said_and_not_written(tmp_path: Path) -> None:
    archive = Archive.create(str(tmp_path / "a"))
    with ArchiveWriter(archive, 0):
        sink = ArchiveSink(archive, 0)
        sink.append(fake_episode(0))
        assert "being written by another process" in sink.status().error
    assert archive.entries() == []
