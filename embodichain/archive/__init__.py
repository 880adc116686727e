"""Archives: episodes, or their recipes alone, kept on any file system; no simulator, no Ray, no MLflow."""

from embodichain.archive.archive import KINDS, Archive, DamagedEntry, Problem
from embodichain.archive.manifest import Entry
from embodichain.archive.sink import ArchiveSink, ArchiveStatus
from embodichain.archive.storage import Location
from embodichain.archive.writer import ArchiveWriter, Compaction, compact

__all__ = [
    "KINDS",
    "Archive",
    "ArchiveSink",
    "ArchiveStatus",
    "ArchiveWriter",
    "Compaction",
    "DamagedEntry",
    "Entry",
    "Location",
    "Problem",
    "compact",
]
