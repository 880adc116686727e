"""An archive of episodes: opening, reading, verifying. Writing is `archive.writer`'s.

    archive.json                             format, kind, schema version, what the episodes were made with
    manifest/shard-0.00000001.jsonl          a line per committed entry: recipe, pairs, files and their checksums
    episodes/shard-0/<recipe id>/            a zarr v3 group: one array of one chunk per array of the episode

An entry exists once its manifest line does. Of a `recipes` archive the manifest is all there is.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from embodichain.archive.codec import decode
from embodichain.archive.manifest import FOLDER, Entry, Manifest, read_manifests
from embodichain.archive.storage import Location
from embodichain.contracts import SCHEMA_VERSION, Episode, Recipe

FORMAT = 1
KINDS = ("arrays", "recipes")
EPISODES = "episodes"


class DamagedEntry(ValueError):
    """An archived episode that is not what was written; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that `verify` found.

    Attributes:
        recipe: of the damaged episode; None for a damaged manifest line.
        where: the file, below the archive.
        what: what is wrong with it.
    """

    recipe: Recipe | None
    where: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An existing archive.

    Attributes:
        root: where it lies.
        kind: `arrays`, or `recipes` only.
        schema_version: of the episodes' contract when it was made.
        made_with: JSON-able settings that its episodes share (encoder, tau, ...): those of one archive can be stacked.
    """

    root: Location
    kind: str
    schema_version: int = SCHEMA_VERSION
    made_with: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, place: str | Location) -> Archive:
        """Open an archive. Raises `ValueError` if there is none, or one of another format or a newer schema."""
        root = Location.of(place)
        try:
            raw = json.loads((root / "archive.json").read_bytes())
            if raw["format"] != FORMAT or raw["kind"] not in KINDS:
                raise ValueError(f"archive {root}: format {raw['format']} of {raw['kind']}, expected {FORMAT}")
            archive = cls(root=root, kind=raw["kind"], schema_version=raw["schema_version"], made_with=raw["made_with"])
        except (OSError, ImportError) as error:
            raise ValueError(
                f"archive {root}: no archive.json there ({error}); expected an archive's folder"
            ) from error
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"archive {root}: archive.json is damaged ({error!r})") from error
        if archive.schema_version > SCHEMA_VERSION:
            raise ValueError(f"archive {root}: schema {archive.schema_version}, this code reads up to {SCHEMA_VERSION}")
        return archive

    @classmethod
    def create(cls, place: str | Location, *, kind: str = "arrays", made_with: dict[str, Any] | None = None) -> Archive:
        """Make an archive, or open the one that is there if it takes such episodes.

        Raises:
            ValueError: for an unknown kind, or an archive of another kind, schema version or settings.
            OSError: the place cannot be written.
        """
        if kind not in KINDS:
            raise ValueError(f"archive.kind={kind}: expected one of {', '.join(KINDS)}")
        root = Location.of(place)
        if not (root / "archive.json").exists():
            content = {"format": FORMAT, "kind": kind, "schema_version": SCHEMA_VERSION, "made_with": made_with or {}}
            (root / "archive.json").write_bytes(json.dumps(content, indent=1).encode())
        archive = cls.open(root)
        archive.require(kind, made_with)
        return archive

    def require(self, kind: str, made_with: dict[str, Any] | None = None) -> None:
        """Raise `ValueError`, naming what differs, unless such episodes can be appended."""
        wanted = {"kind": kind, "schema_version": SCHEMA_VERSION, "made_with": json.loads(json.dumps(made_with or {}))}
        for name, value in wanted.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"archive {self.root}: holds {name}={getattr(self, name)}, expected {value}; episodes of both "
                    "could not be told apart: name another archive"
                )

    def manifests(self) -> dict[int, Manifest]:
        """What every shard's manifest says, by shard."""
        return read_manifests(self.root)

    def entries(self) -> list[Entry]:
        """Every committed entry once, in the order of shards and of their commits."""
        found: dict[str, Entry] = {}
        for manifest in self.manifests().values():
            for name, entry in manifest.entries.items():
                found.setdefault(name, entry)
        return list(found.values())

    def folder(self, entry: Entry) -> Location:
        """The zarr group of an entry."""
        return self.shard_folder(entry.shard) / entry.id

    def shard_folder(self, shard: int) -> Location:
        """The zarr group of a shard."""
        return self.root / EPISODES / f"shard-{shard}"

    def read(self, entry: Entry) -> Episode:
        """The episode of an entry, as it was written, brought to the present schema.

        Raises:
            DamagedEntry: a file is missing or differs from its checksum.
            ValueError: only its recipe is kept.
        """
        if not entry.files:
            raise ValueError(f"archive {self.root}: {entry.id} is a recipe alone; `embodichain archive materialise` it")
        files = self.folder(entry).read_files(list(entry.files))
        for problem in self._problems(entry, files):
            raise DamagedEntry(
                f"archive {self.root}: episode {entry.id} ({entry.recipe.task}, seed {entry.recipe.seed}): "
                f"{problem.where} {problem.what}"
            )
        try:
            return decode(files)
        except ValueError as error:
            raise DamagedEntry(f"archive {self.root}: episode {entry.id}: {error}") from error

    def episodes(
        self, entries: Iterable[Entry] | None = None, on_damage: Callable[[Entry, DamagedEntry], None] | None = None
    ) -> Iterator[Episode]:
        """The episodes of `entries` (default: all), one after the other.

        Args:
            entries: which ones.
            on_damage: told of every damaged entry, which is then left out; None: the first one raises `DamagedEntry`.
        """
        for entry in self.entries() if entries is None else entries:
            try:
                episode = self.read(entry)
            except DamagedEntry as error:
                if on_damage is None:
                    raise
                on_damage(entry, error)
                continue
            yield episode

    def verify(self, on_entry: Callable[[Entry], None] = lambda entry: None) -> list[Problem]:
        """Read everything and compare checksums; `on_entry` is told of each entry that was looked at."""
        problems = []
        for manifest in self.manifests().values():
            problems += [Problem(recipe=None, where=f"{FOLDER}/{line}", what="is damaged") for line in manifest.damaged]
            for entry in manifest.entries.values():
                if entry.files:
                    problems += self._problems(entry, self.folder(entry).read_files(list(entry.files)))
                on_entry(entry)
        return problems

    def leftovers(self) -> list[Location]:
        """Folders of entries that were never committed (or whose manifest line is damaged)."""
        manifests, found = self.manifests(), []
        for name in (self.root / EPISODES).names():
            shard = int(name.removeprefix("shard-")) if name.startswith("shard-") else None
            if shard is None:
                continue
            known = manifests[shard].entries if shard in manifests else {}
            folder = self.shard_folder(shard)
            found += [folder / child for child in folder.names() if child != "zarr.json" and child not in known]
        return found

    def _problems(self, entry: Entry, files: dict[str, bytes]) -> Iterator[Problem]:
        for name, crc in entry.files.items():
            where = f"{EPISODES}/shard-{entry.shard}/{entry.id}/{name}"
            if name not in files:
                yield Problem(recipe=entry.recipe, where=where, what="is missing")
            elif zlib.crc32(files[name]) != crc:
                yield Problem(recipe=entry.recipe, where=where, what="differs from its checksum")
