"""Episodes that exist already: a process of the pool that reads them from an archive instead of simulating them."""

from __future__ import annotations

import time
from dataclasses import replace

from embodichain.actors.training import check_training
from embodichain.actors.worker import WorkReport
from embodichain.archive import Archive, DamagedEntry
from embodichain.contracts import Episode, Recipe
from embodichain.replay.writer import ReplayWriter

APPEND_TIMEOUT_S = 2.0


def without_states(episode: Episode) -> Episode:
    """Without simulator states and frames: windows are cut without them, and the recipe brings them back."""
    return replace(episode, sim_state=episode.sim_state[:, :0], rgb=None)


class ArchiveReader:
    """Appends archived episodes to the replay by their recipes.

    A damaged episode is reported as rejected (`damaged`) and never sampled; one that the replay knows already, in this
    start of the run or an earlier one, as `duplicate`; one that a complete static set has no room for as `full`.

    Args:
        archive: of arrays.
        writer: to the replay.
    """

    def __init__(self, archive: Archive, writer: ReplayWriter) -> None:
        self._archive, self._writer = archive, writer
        self._entries = {entry.id: entry for entry in archive.entries()}

    def produce(self, recipe: Recipe) -> WorkReport:
        """Read one episode, and block until the replay has taken it. Raises `ValueError` for one not for training."""
        check_training(recipe)
        started = time.perf_counter()
        try:
            episode = self._archive.read(self._entries[recipe.id])
        except DamagedEntry:
            return WorkReport(recipe=recipe, accepted=False, reasons=("damaged",), pairs=0)
        busy_s = time.perf_counter() - started
        report = self._writer.append([without_states(episode)], APPEND_TIMEOUT_S)
        while report.retry:
            report = self._writer.append(report.retry, APPEND_TIMEOUT_S)
        reasons = ("duplicate",) if report.duplicate else ("full",) if report.full else ()
        return WorkReport(recipe=recipe, accepted=not reasons, reasons=reasons, pairs=episode.pairs, busy_s=busy_s)
