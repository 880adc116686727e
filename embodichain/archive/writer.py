"""The one writer of an archive's shard, and compaction. Owns: the order of writes that makes a commit.

Files first, then the manifest line, both handed to the disk: a process that dies in between leaves a folder that no
manifest names, which no reader sees and `compact` removes. On a local disk a lock that dies with its process keeps a
second writer (and a compaction) out; elsewhere nothing does, and a shard's writer is whoever runs the shard.
"""

from __future__ import annotations

import fcntl
import os
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from embodichain.archive.archive import Archive
from embodichain.archive.codec import encode, group_file
from embodichain.archive.manifest import FOLDER, Entry, read_manifests, segment_name
from embodichain.archive.storage import Location, sync_folder
from embodichain.contracts import Episode


class ShardLock:
    """Exclusive writing of one shard, on a local disk. Raises `ValueError` while another process has it."""

    def __init__(self, archive: Archive, shard: int) -> None:
        self._descriptor: int | None = None
        folder = (archive.root / FOLDER).local
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(folder / f"shard-{shard}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise ValueError(
                f"archive {archive.root}: shard {shard} is being written by another process; expected one writer"
            ) from error

    def release(self) -> None:
        """Let others write; idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class ArchiveWriter:
    """Appends episodes to one shard of an archive; several threads may.

    Args:
        archive: where to.
        shard: which shard; nobody else may be writing it.

    Raises:
        ValueError: another process writes this shard.
        OSError: the archive cannot be read.
    """

    def __init__(self, archive: Archive, shard: int) -> None:
        self.archive, self.shard = archive, shard
        self._lock = ShardLock(archive, shard)
        manifests = archive.manifests()
        self._known = {name for manifest in manifests.values() for name in manifest.entries}
        self._next = manifests[shard].next_segment if shard in manifests else 1
        self._log: int | None = None
        self._mutex = threading.Lock()
        self.appended = 0
        self.nbytes = 0

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, episode: Episode) -> bool:
        """Commit an episode; False if the archive has its recipe already.

        On an error nothing of it is committed, and the next append goes on.

        Raises:
            ValueError: if the episode breaks its contract.
            OSError: it could not be written; the disk may be full.
        """
        with self._mutex:
            if episode.recipe.id in self._known:
                return False
            files = encode(episode) if self.archive.kind == "arrays" else {}
            entry = Entry(
                shard=self.shard,
                recipe=episode.recipe,
                pairs=episode.pairs,
                files={name: zlib.crc32(data) for name, data in files.items()},
                nbytes=sum(map(len, files.values())),
            )
            folder = self.archive.folder(entry)
            try:
                if files:
                    self._write_groups()
                    folder.write_files(files)
                self._commit(entry.to_line())
            except OSError:
                self._end_segment()  # its last line may be half there
                with suppress(OSError):
                    folder.remove()
                raise
            self._known.add(entry.id)
            self.appended += 1
            self.nbytes += entry.nbytes
            return True

    def close(self) -> None:
        """Give the shard up; idempotent."""
        self._end_segment()
        self._lock.release()

    def _write_groups(self) -> None:
        """The zarr groups above the entries, before the first one."""
        shard = self.archive.shard_folder(self.shard)
        if self.appended:
            return
        for group in (shard.parent, shard):
            if not (group / "zarr.json").exists():
                (group / "zarr.json").write_bytes(group_file({}))

    def _commit(self, line: bytes) -> None:
        folder = self.archive.root / FOLDER
        local = folder.local
        if local is None:
            (folder / segment_name(self.shard, self._next)).write_bytes(line)
            self._next += 1
            return
        if self._log is None:
            path = local / segment_name(self.shard, self._next)
            self._log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            self._next += 1
            sync_folder(local)
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._log, rest) :]
        os.fsync(self._log)

    def _end_segment(self) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """What `compact` did: uncommitted entries dropped, segments before and after, damaged lines that it left alone."""

    dropped: int = 0
    segments_before: int = 0
    segments_after: int = 0
    damaged_lines: int = 0


def compact(archive: Archive, on_drop: Callable[[Location], None] = lambda folder: None) -> Compaction:
    """Drop what was never committed and merge each shard's manifest into one segment.

    It may be killed at any point: the merged segment takes the first one's place, whole, before the others go, and an
    entry that stands in both counts once. A shard with damaged manifest lines keeps its segments and folders: what is
    lost in the manifest may still be in them.

    Raises:
        ValueError: a shard is being written.
        OSError: something could not be written; nothing is lost.
    """
    locks = [ShardLock(archive, shard) for shard in archive.manifests()]
    try:
        manifests = archive.manifests()
        damaged = {shard: len(manifest.damaged) for shard, manifest in manifests.items()}
        kept = 0
        for shard, manifest in manifests.items():
            kept += len(manifest.segments) if damaged[shard] else _merge(archive, shard)
        leftovers = [folder for folder in archive.leftovers() if not damaged.get(_shard_of(folder))]
        for folder in leftovers:
            folder.remove()
            on_drop(folder)
        return Compaction(
            dropped=len(leftovers),
            segments_before=sum(len(manifest.segments) for manifest in manifests.values()),
            segments_after=kept,
            damaged_lines=sum(damaged.values()),
        )
    finally:
        for lock in locks:
            lock.release()


def _merge(archive: Archive, shard: int) -> int:
    """Write one segment for all of a shard's; returns how many there are then."""
    manifest, folder = read_manifests(archive.root, only=shard)[shard], archive.root / FOLDER
    if len(manifest.segments) > 1 or manifest.torn:
        merged = b"".join(entry.to_line() for entry in manifest.entries.values())
        first, *others = manifest.segments
        (folder / first).write_bytes(merged)  # in the place of the first, so that the order of entries stays
        for name in others:
            (folder / name).remove()
    return 1


def _shard_of(folder: Location) -> int:
    return int(folder.parent.name.removeprefix("shard-"))
