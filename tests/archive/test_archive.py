"""What an archive promises: entries are whole or not there, damage is named, and any zarr library can read it."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import uuid
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from embodichain.archive import Archive, ArchiveWriter, DamagedEntry, Location, compact
from embodichain.contracts import Episode
from embodichain.replay import fake_episode


def filled(place: str | Path, count: int = 5, *, kind: str = "arrays", shard: int = 0) -> Archive:
    archive = Archive.create(str(place), kind=kind)
    with ArchiveWriter(archive, shard) as writer:
        for seed in range(count):
            assert writer.append(fake_episode(seed, 20 + seed, 2, 3))
    return archive


def assert_equal(one: Episode, other: Episode) -> None:
    for item in fields(Episode):
        a, b = getattr(one, item.name), getattr(other, item.name)
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.shape) == (b.dtype, b.shape), item.name
            np.testing.assert_array_equal(a, b, err_msg=item.name)
        else:
            assert a == b, item.name


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "a") if request.param == "local" else f"memory://{uuid.uuid4().hex}/a"


def test_what_is_read_is_what_was_written(place: str) -> None:
    odd = replace(
        fake_episode(7, 16, 2, 3, tau=8, mistakes=0.3),
        sim_state=np.zeros((17, 0), dtype=np.float32),
        rgb=np.arange(3 * 2 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 2, 4, 4, 3),
        draws={"cube_x": 0.25, "noise": [1.0, 2.0], "words": ["red"]},
    )
    archive = Archive.create(place, made_with={"tau": 8})
    with ArchiveWriter(archive, 3) as writer:
        assert writer.append(odd)
        assert writer.append(fake_episode(1, 30))
        assert not writer.append(odd)
    again = Archive.open(place)
    assert (again.kind, again.made_with) == ("arrays", {"tau": 8})
    for entry, episode in zip(again.entries(), (odd, fake_episode(1, 30)), strict=True):
        assert (entry.recipe, entry.pairs, entry.shard) == (episode.recipe, episode.pairs, 3)
        assert_equal(again.read(entry), episode)
    with ArchiveWriter(Archive.open(place), 3) as writer:  # a later life knows what it has
        assert not writer.append(odd)
    assert again.verify() == []


def test_any_zarr_library_reads_it(tmp_path: Path) -> None:
    archive = filled(tmp_path / "a", 3)
    group = zarr.open_group(tmp_path / "a" / "episodes", mode="r")
    for entry in archive.entries():
        found, episode = group[f"shard-0/{entry.id}"], archive.read(entry)
        assert isinstance(found, zarr.Group)
        assert sorted(found.array_keys()) == sorted(
            ["action", "label_valid", "proprio", "segment_id", "sim_state", "tokens"]
        )
        for name, array in found.arrays():
            assert array.metadata.zarr_format == 3
            assert array.chunks == array.shape
            np.testing.assert_array_equal(array[...], getattr(episode, name))
        assert found.attrs["instruction"] == episode.instruction


def test_a_recipe_takes_about_a_hundred_bytes(place: str) -> None:
    archive = filled(place, 20, kind="recipes")
    manifest = archive.root / "manifest"
    assert sum(len((manifest / name).read_bytes()) for name in manifest.names() if name.endswith("jsonl")) < 20 * 120
    assert [entry.recipe for entry in archive.entries()] == [fake_episode(seed).recipe for seed in range(20)]
    assert archive.verify() == []
    with pytest.raises(ValueError, match="a recipe alone"):
        archive.read(archive.entries()[0])


def test_a_damaged_chunk_is_found_and_named_and_the_rest_stays_readable(place: str) -> None:
    archive = filled(place)
    victim, gone = archive.entries()[1], archive.entries()[3]
    chunk = archive.folder(victim) / "tokens" / "c" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(bytes(data))
    (archive.folder(gone) / "zarr.json").remove()
    looked: list[str] = []
    problems = archive.verify(lambda entry: looked.append(entry.id))
    assert [(p.recipe, p.what) for p in problems] == [
        (victim.recipe, "differs from its checksum"),
        (gone.recipe, "is missing"),
    ]
    assert f"{victim.id}/tokens/c/0/0/0" in problems[0].where
    assert len(looked) == 5
    with pytest.raises(DamagedEntry, match=f"{victim.id}.*pick_place, seed 1.*tokens"):
        archive.read(victim)
    skipped: list[str] = []
    seeds = [e.recipe.seed for e in archive.episodes(on_damage=lambda entry, error: skipped.append(entry.id))]
    assert (seeds, skipped) == ([0, 2, 4], [victim.id, gone.id])


def test_a_damaged_manifest_line_is_reported_and_compact_leaves_its_folder(tmp_path: Path) -> None:
    archive = filled(tmp_path / "a")
    (segment,) = (tmp_path / "a" / "manifest").glob("*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"seed":2', b'"seed":9')
    segment.write_bytes(b"".join(lines))
    assert [e.recipe.seed for e in archive.entries()] == [0, 1, 3, 4]
    (problem,) = archive.verify()
    assert (problem.recipe, problem.where) == (None, f"manifest/{segment.name}:3")
    done = compact(archive)
    assert (done.dropped, done.damaged_lines) == (0, 1)
    assert (tmp_path / "a" / "episodes" / "shard-0" / fake_episode(2).recipe.id / "zarr.json").exists()


def test_compact_drops_leftovers_and_merges_whatever_moment_it_is_killed_at(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = filled(place, 3)
    for seed in (3, 4):  # two more lives of the writer, two more segments
        with ArchiveWriter(archive, 0) as writer:
            writer.append(fake_episode(seed, 20))
    whole = [entry.recipe for entry in archive.entries()]
    (archive.shard_folder(0) / fake_episode(9).recipe.id).write_files({"zarr.json": b"{}", "action/c/0/0": b"1234"})
    if archive.root.local is not None:
        (archive.root.local / "manifest" / "shard-0.00000009.jsonl").write_bytes(b'{"torn')
    lives = 0
    remove = Location.remove

    def dies(self: Location) -> None:
        nonlocal lives
        if lives == 0:
            raise KeyboardInterrupt
        lives -= 1
        remove(self)

    monkeypatch.setattr(Location, "remove", dies)
    for removals in (0, 1):
        lives = removals
        with pytest.raises(KeyboardInterrupt):
            compact(archive)
        assert [entry.recipe for entry in archive.entries()] == whole
    monkeypatch.setattr(Location, "remove", remove)
    done = compact(archive)
    assert (done.dropped, done.segments_after) == (1, 1)
    assert [name for name in (archive.root / "manifest").names() if name.endswith("jsonl")] != []
    assert [entry.recipe for entry in archive.entries()] == whole
    assert archive.leftovers() == []
    assert archive.verify() == []
    with ArchiveWriter(archive, 0) as writer:
        assert not writer.append(fake_episode(3, 20))
        assert writer.append(fake_episode(9, 20))


WRITER = """
import sys
from embodichain.archive import Archive, ArchiveWriter
from embodichain.replay import fake_episode
archive = Archive.create(sys.argv[1])
with ArchiveWriter(archive, 0) as writer:
    for seed in range(int(sys.argv[2]), 10_000):
        writer.append(fake_episode(seed, 60, 8, 41))
        print(seed, flush=True)
"""


def test_kill_9_loses_no_committed_entry_and_shows_no_partial_one(tmp_path: Path) -> None:
    committed: list[int] = []
    rng = np.random.default_rng(0)
    for _ in range(8):
        first = committed[-1] + 2 if committed else 0  # what was being written stays uncommitted
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "a"), str(first)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            committed.append(int(line))
            if rng.random() < 0.2:
                break
        process.kill()
        committed += [int(line) for line in process.stdout.read().split("\n")[:-1]]
        process.wait()
        archive = Archive.open(str(tmp_path / "a"))
        seeds = [entry.recipe.seed for entry in archive.entries()]
        assert set(committed) <= set(seeds)
        assert len(seeds) - len(committed) <= 8  # committed, and killed before it could say so
        assert archive.verify() == []
        for episode in archive.episodes():
            assert_equal(episode, fake_episode(episode.recipe.seed, 60, 8, 41))
    before = len(archive.entries())
    compact(archive)
    assert len(archive.entries()) == before
    assert archive.leftovers() == []


def test_a_shard_has_one_writer_and_compact_waits_for_none(tmp_path: Path) -> None:
    archive = Archive.create(str(tmp_path / "a"))
    with ArchiveWriter(archive, 0) as writer:
        writer.append(fake_episode(0))
        with pytest.raises(ValueError, match="shard 0 is being written"):
            ArchiveWriter(archive, 0)
        with pytest.raises(ValueError, match="shard 0 is being written"):
            compact(archive)
        ArchiveWriter(archive, 1).close()
    ArchiveWriter(archive, 0).close()


def test_a_full_disk_commits_nothing_and_the_next_append_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive.create(str(tmp_path / "a"))
    real = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if len(data) < 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[: len(data) - 30])

    with ArchiveWriter(archive, 0) as writer:
        writer.append(fake_episode(0))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)  # half a manifest line gets out
            with pytest.raises(OSError, match="No space left"):
                writer.append(fake_episode(1))
        assert [e.recipe.seed for e in archive.entries()] == [0]
        assert archive.leftovers() == []
        assert writer.append(fake_episode(1))
        assert writer.append(fake_episode(2))
    assert [e.recipe.seed for e in archive.entries()] == [0, 1, 2]
    assert archive.verify() == []


def test_a_write_that_takes_only_a_part_commits_nothing(tmp_path: Path) -> None:
    archive = Archive.create(str(tmp_path / "a"))
    big, soft_hard = fake_episode(1, 64, 16, 384, tau=8), resource.getrlimit(resource.RLIMIT_FSIZE)
    with ArchiveWriter(archive, 0) as writer:
        writer.append(fake_episode(0))
        try:  # a file may grow to there: the write before that takes a part, and raises nothing
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, soft_hard[1]))
            with pytest.raises(OSError, match="File too large"):
                writer.append(big)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, soft_hard)
        assert archive.leftovers() == []
        assert writer.append(big)
    assert [e.recipe.seed for e in archive.entries()] == [0, 1]
    assert archive.verify() == []


def to_version_1(root: Path) -> None:
    """Turn an archive into what was written before recoveries: no `label_valid`, schema version 1."""
    import zlib

    settings = json.loads((root / "archive.json").read_text())
    (root / "archive.json").write_text(json.dumps({**settings, "schema_version": 1}))
    (segment,) = (root / "manifest").glob("*.jsonl")
    lines = []
    for entry in Archive.open(str(root)).entries():
        folder = root / "episodes" / "shard-0" / entry.id
        group = json.loads((folder / "zarr.json").read_text())
        group["attributes"]["schema_version"] = 1
        (folder / "zarr.json").write_text(json.dumps(group))
        files = {name: crc for name, crc in entry.files.items() if not name.startswith("label_valid")}
        files["zarr.json"] = zlib.crc32((folder / "zarr.json").read_bytes())
        lines.append(replace(entry, files=files).to_line())
    segment.write_bytes(b"".join(lines))


def test_an_archive_of_the_previous_schema_is_migrated(tmp_path: Path) -> None:
    filled(tmp_path / "a")
    to_version_1(tmp_path / "a")
    archive = Archive.open(str(tmp_path / "a"))
    assert archive.schema_version == 1
    for seed, episode in enumerate(archive.episodes()):
        assert_equal(episode, replace(fake_episode(seed, 20 + seed, 2, 3), label_valid=np.ones(20 + seed, dtype=bool)))
    with pytest.raises(ValueError, match="schema_version=1, expected 2"):
        Archive.create(str(tmp_path / "a"))


def test_what_is_no_archive_or_another_one_is_refused_in_one_line(tmp_path: Path) -> None:
    filled(tmp_path / "a", 1)
    for call, expected in [
        (lambda: Archive.open(str(tmp_path / "none")), r"none: no archive\.json there"),
        (lambda: Archive.open("nosuch://x"), "path=nosuch://x: .*expected a local path"),
        (lambda: Archive.create(str(tmp_path / "a"), kind="recipes"), "holds kind=arrays, expected recipes"),
        (lambda: Archive.create(str(tmp_path / "a"), made_with={"tau": 4}), "holds made_with="),
        (lambda: Archive.create(str(tmp_path / "b"), kind="films"), "archive.kind=films: expected one of"),
    ]:
        with pytest.raises(ValueError, match=expected) as caught:
            call()
        assert "\n" not in str(caught.value)
    settings = json.loads((tmp_path / "a" / "archive.json").read_text())
    (tmp_path / "a" / "archive.json").write_text(json.dumps({**settings, "schema_version": 99}))
    with pytest.raises(ValueError, match="schema 99, this code reads up to 2"):
        Archive.open(str(tmp_path / "a"))
