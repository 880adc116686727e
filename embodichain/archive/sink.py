"""Archiving beside a run: keeps what it can, and never stands in the run's way. Owns: stopping when a write fails."""

from __future__ import annotations

import time
from dataclasses import dataclass

from embodichain.archive.archive import Archive
from embodichain.archive.writer import ArchiveWriter
from embodichain.contracts import Episode


@dataclass(frozen=True, kw_only=True)
class ArchiveStatus:
    """What a sink has done since it began.

    Attributes:
        episodes, nbytes: committed by it. `busy_s`: seconds it took.
        error: why it stopped archiving; empty while it goes on.
    """

    episodes: int = 0
    nbytes: int = 0
    busy_s: float = 0.0
    error: str = ""


class ArchiveSink:
    """The archive's end in a replay shard: one writer, which gives up for good at the first write that fails.

    A full disk would fail every later write too, and an archive with holes is worse to find out about late than one
    that ends: the run goes on learning, and says what happened.

    Args:
        archive: where to.
        shard: which shard is this one's to write.
    """

    def __init__(self, archive: Archive, shard: int) -> None:
        self._writer: ArchiveWriter | None = None
        self._error, self._busy_s = "", 0.0
        self._done = (0, 0)
        try:
            self._writer = ArchiveWriter(archive, shard)
        except (OSError, ValueError) as error:
            self._error = str(error)

    def append(self, episode: Episode) -> None:
        """Commit an episode, once per recipe; nothing happens after an error."""
        writer = self._writer
        if writer is None:
            return
        began = time.perf_counter()
        try:
            writer.append(episode)
        except OSError as error:
            self._error, self._writer = f"{writer.archive.root}: {error}", None
            writer.close()
        self._done = (writer.appended, writer.nbytes)
        self._busy_s += time.perf_counter() - began

    def status(self) -> ArchiveStatus:
        """What was done, and why it stopped if it did."""
        episodes, nbytes = self._done
        return ArchiveStatus(episodes=episodes, nbytes=nbytes, busy_s=self._busy_s, error=self._error)
