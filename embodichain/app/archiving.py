"""The archives of a run: the one that its episodes are kept in, and the one that they come from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from embodichain.actors.recipes import RecipeStream
from embodichain.app.config import RunConfig, recipe_stream
from embodichain.app.feed import split
from embodichain.app.folder import RunState
from embodichain.archive import Archive, Location
from embodichain.contracts import Recipe

FAULT = "archive_write"
COST = "cost.json"


class RunArchive:
    """Keeps an eye on what the shards archive; inert where `archive.path` is empty.

    Args:
        config: the run's.
        state: its `archive` and `faults` are kept up to date.
        announce: told one line when archiving stops.
    """

    def __init__(self, config: RunConfig, state: RunState, announce: Callable[[str], None]) -> None:
        self._config, self._state, self._announce = config, state, announce
        self._archive: Archive | None = None
        self._reported: set[str] = set()
        self._look_at = 0  # accepted pairs

    def open(self) -> Archive | None:
        """The archive, made if missing. Raises `RuntimeError` if it cannot be."""
        settings = self._config.archive
        if settings.path:
            try:
                self._archive = Archive.create(settings.path, kind=settings.kind, made_with=self._config.made_with)
            except OSError as error:
                raise RuntimeError(f"archive.path={settings.path}: cannot be written ({error})") from error
            self._state.archive = {"path": str(self._archive.root), "kind": settings.kind, "error": ""}
        return self._archive

    def poll(self, shards: Sequence[Any]) -> None:
        """Ask the shards whether they still archive; what made one stop is a fault, said and counted once."""
        if self._archive is None:
            return
        for shard in shards:
            try:
                status = ray.get(shard.archived.remote(), timeout=5)
            except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
                continue  # it is restarting: asked again at the next turn
            if status.error and status.error not in self._reported:
                self._reported.add(status.error)
                self._state.faults[FAULT] += 1
                self._state.archive["error"] = status.error
                self._announce(f"archiving stopped, learning goes on: {status.error}")

    @property
    def complete(self) -> bool:
        """Whether it holds as many pairs as the run was started for; never, if the run is for something else."""
        wanted = self._config.archive.pairs
        if self._archive is None or wanted is None:
            return False
        if self._state.counts.accepted_pairs < self._look_at:
            return False  # to read the whole manifest costs something: not before what was accepted may be enough
        held = sum(entry.pairs for entry in self._archive.entries())
        self._look_at = self._state.counts.accepted_pairs + wanted - held
        return held >= wanted

    def finish(self) -> None:
        """Count what the archive holds now, for the summary."""
        if self._archive is not None:
            entries = self._archive.entries()
            self._state.archive |= {"episodes": len(entries), "bytes": sum(entry.nbytes for entry in entries)}
            self._write_cost()

    def _write_cost(self) -> None:
        """Say in the archive what this run's simulators have spent: whoever learns from it owes a share of that."""
        assert self._archive is not None
        known = _costs(self._archive.root)
        known[f"{self._config.name}-{self._config.hash()}"] = self._state.counts.cpu_s
        try:
            (self._archive.root / COST).write_bytes(json.dumps(known, indent=1).encode())
        except OSError as error:
            self._announce(f"{self._archive.root / COST} cannot be written ({error})")


def _costs(root: Location) -> dict[str, float]:
    """Run -> core-seconds of its simulators."""
    return json.loads((root / COST).read_bytes()) if (root / COST).exists() else {}


def cost_per_pair(place: str) -> float | None:
    """Core-seconds that a pair of an archive has cost, rejected episodes included; None if nobody wrote that down."""
    if not place:
        return None
    archive = Archive.open(place)
    spent, pairs = sum(_costs(archive.root).values()), sum(entry.pairs for entry in archive.entries())
    return spent / pairs if spent and pairs else None


@dataclass(kw_only=True)
class ArchiveStream:
    """An archive's recipes in a seeded order, each once.

    A resumed run begins again: what the shards still know of is a duplicate to them, and what they have lost comes back
    with the passes that their ledgers leave it.
    """

    recipes: list[Recipe]
    drawn: int = 0

    def next(self) -> Recipe | None:
        """The next recipe; None after the last."""
        if self.drawn >= len(self.recipes):
            return None
        self.drawn += 1
        return self.recipes[self.drawn - 1]


def open_stream(config: RunConfig, sim_hash: str, drawn: int) -> RecipeStream | ArchiveStream:
    """Where the run's recipes come from: drawn for simulators, or those of the archive's episodes of its tasks."""
    if not config.source_archive:
        return recipe_stream(config, sim_hash, drawn)
    entries = {e.id: e for e in Archive.open(config.source_archive).entries() if e.recipe.task in config.active_tasks}
    order, _ = split(list(entries.values()), 0.0, config.seed)
    return ArchiveStream(recipes=[entries[each].recipe for each in order])
