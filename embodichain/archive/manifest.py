"""Which episodes an archive has: JSON lines, one per committed entry. Owns: what counts as committed.

A shard's manifest is a row of segments `manifest/shard-<i>.<n>.jsonl`. A writer never continues an old segment: on a
local disk it appends, fsync'ed, to one of its own; where files cannot be appended to, every entry is a segment. A last
line without its newline was torn by a crash and is no entry; any other line that fails its checksum is damage.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import asdict, dataclass, field

from embodichain.archive.storage import Location
from embodichain.contracts import Recipe

FOLDER = "manifest"
_SEGMENT = re.compile(r"shard-(\d+)\.(\d+)\.jsonl")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One committed episode.

    Attributes:
        shard: the shard that it lies in.
        recipe: what it was made from.
        pairs: T; 0 where only the recipe is kept.
        files: name below the entry's folder -> CRC-32 of its content; empty where only the recipe is kept.
        nbytes: of these files.
    """

    shard: int
    recipe: Recipe
    pairs: int = 0
    files: dict[str, int] = field(default_factory=dict)
    nbytes: int = 0

    @property
    def id(self) -> str:
        """The recipe's id, and the name of the entry's folder."""
        return self.recipe.id

    def to_line(self) -> bytes:
        """JSON with a checksum of itself, and a newline."""
        content: dict[str, object] = asdict(self.recipe)
        if self.files:
            files = {name: f"{crc:08x}" for name, crc in self.files.items()}
            content = {"recipe": content, "pairs": self.pairs, "bytes": self.nbytes, "files": files}
        body = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return f'{body[:-1]},"crc":"{zlib.crc32(body.encode()):08x}"}}\n'.encode()

    @classmethod
    def from_line(cls, line: bytes, shard: int) -> Entry:
        """Inverse of `to_line`. Raises `ValueError` for anything else."""
        body, separator, tail = line.rstrip(b"\n").rpartition(b',"crc":"')
        body += b"}"
        if not separator or tail != f'{zlib.crc32(body):08x}"}}'.encode():
            raise ValueError("checksum differs")
        content = json.loads(body)
        if "recipe" not in content:
            return cls(shard=shard, recipe=Recipe(**content))
        files = {name: int(crc, 16) for name, crc in content["files"].items()}
        recipe = Recipe(**content["recipe"])
        return cls(shard=shard, recipe=recipe, pairs=content["pairs"], files=files, nbytes=content["bytes"])


@dataclass(kw_only=True)
class Manifest:
    """What the segments of one shard say.

    Attributes:
        entries: id -> entry, in the order of their commits.
        damaged: `file:line` of every line that is neither whole nor a torn last one.
        torn: last lines without a newline.
        segments: names of the files.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    torn: int = 0
    segments: list[str] = field(default_factory=list)

    @property
    def next_segment(self) -> int:
        """A number above every segment's."""
        numbers = [int(found[2]) for name in self.segments if (found := _SEGMENT.fullmatch(name))]
        return max(numbers, default=0) + 1

    def read(self, folder: Location, name: str, shard: int) -> None:
        """Take a segment in."""
        self.segments.append(name)
        *lines, tail = (folder / name).read_bytes().split(b"\n")
        self.torn += bool(tail)
        for number, line in enumerate(lines, start=1):
            try:
                entry = Entry.from_line(line, shard)
            except (ValueError, TypeError, KeyError):
                self.damaged.append(f"{name}:{number}")
                continue
            self.entries.setdefault(entry.id, entry)


def segment_name(shard: int, number: int) -> str:
    """File name of a shard's segment."""
    return f"shard-{shard}.{number:08d}.jsonl"


def read_manifests(root: Location, only: int | None = None) -> dict[int, Manifest]:
    """The manifests of an archive's shards (or of one of them), by shard."""
    folder = root / FOLDER
    found: dict[int, Manifest] = {}
    for name in folder.names():
        match = _SEGMENT.fullmatch(name)
        if match is None or only not in (None, int(match[1])):
            continue
        found.setdefault(int(match[1]), Manifest()).read(folder, name, int(match[1]))
    return dict(sorted(found.items()))
