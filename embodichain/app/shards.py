"""The driver's view of the replay's shards: what they say, what they said last while one restarts, and their snapshots.

A shard that dies is started again by Ray, and the learner goes on with the others meanwhile; so must the driver. A
fixed set comes from nobody a second time: a shard that has lost its part is given its snapshot back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from embodichain.actors.pool import PoolCounts
from embodichain.archive import Location
from embodichain.replay.accounting import ReplayStats
from embodichain.replay.snapshot import DamagedSnapshot

DIED, HUNG = "shard_died", "shard_hung"
ANSWER_S = 10.0  # a shard answers its control calls at once, whatever else waits


class ShardWatch:
    """Asks every shard, and counts those that do not answer.

    Args:
        shards: actor handles, by index.
        counts: the run's; deaths and recovery times are added to it.
        announce: told one line about what could not be saved.
    """

    def __init__(self, shards: Sequence[Any], counts: PoolCounts, announce: Callable[[str], None]) -> None:
        self._shards, self._counts, self._announce = shards, counts, announce
        self._last = [ReplayStats() for _ in shards]
        self._down: dict[int, tuple[str, float]] = {}
        self._fixed: dict[int, Path | Location] = {}  # by shard: what one that comes back empty is filled from

    def stats(self) -> list[ReplayStats]:
        """Every shard's counters; of one that does not answer, those it gave last."""
        asked = [shard.stats.remote() for shard in self._shards]
        ready, _ = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_S)
        for index, ref in enumerate(asked):
            if ref not in ready:
                self._lost(index, HUNG)
                continue
            try:
                self._last[index] = ray.get(ref)
            except RayActorError:
                self._lost(index, DIED)
            else:
                self._back(index)
                self._refill(index)
        return list(self._last)

    def expect(self, inserts: bool) -> None:
        """Tell all whether more episodes may come; to be said again and again, for one that restarts forgets it."""
        for shard in self._shards:
            shard.expect.remote(inserts)

    def restore(self, paths: Sequence[Path | Location]) -> None:
        """Fill shards from their snapshots where there are any; one whose snapshot is damaged has its ledger."""
        saved = [(shard, str(path)) for shard, path in zip(self._shards, paths, strict=True) if path.exists()]
        for ref in [shard.restore.remote(path) for shard, path in saved]:
            try:
                ray.get(ref)
            except DamagedSnapshot as error:
                self._announce(f"{_said(error)}: that shard starts without episodes; its ledger still binds it")
            except ValueError as error:
                raise RuntimeError(f"{_said(error)}; without that file the shard starts without episodes") from error

    def fix(self, paths: Sequence[Path | Location]) -> None:
        """Snapshots of all, from which a shard is filled again whenever it comes back empty: nobody else does."""
        self.save(paths)
        held = {index for index, stats in enumerate(self.stats()) if stats.episodes_held}
        self._fixed = {index: path for index, path in enumerate(paths) if index in held and path.exists()}

    def save(self, paths: Sequence[Path | Location]) -> None:
        """Snapshots of all; one that is lost in the meantime keeps its ledger, and its episodes are gone."""
        saving = [shard.save.remote(str(path)) for shard, path in zip(self._shards, paths, strict=True)]
        for index, ref in enumerate(saving):
            try:
                ray.get(ref)
            except RayActorError:
                self._lost(index, DIED)
                self._announce(f"shard {index} died before it could save: its episodes are lost, its ledger is not")
            except OSError as error:
                self._announce(f"shard {index} could not save its episodes ({_said(error)}); its ledger is kept")

    def _refill(self, index: int) -> None:
        """What a shard holds says whether it needs it: it may have died and come back between two questions."""
        path = self._fixed.get(index)
        if path is None or self._last[index].episodes_held:
            return
        try:
            ray.get(self._shards[index].restore.remote(str(path)))
            self._last[index] = ray.get(self._shards[index].stats.remote())
        except RayActorError:
            self._lost(index, DIED)
        except (DamagedSnapshot, OSError) as error:
            del self._fixed[index]
            self._announce(
                f"shard {index} has lost its part of the fixed set, which cannot be restored ({_said(error)})"
            )
        else:
            self._announce(f"shard {index} had lost its part of the fixed set: restored")

    def _lost(self, index: int, fault: str) -> None:
        if index not in self._down:
            self._down[index] = (fault, time.monotonic())
            self._counts.faults[fault] += 1

    def _back(self, index: int) -> None:
        if index in self._down:
            fault, since = self._down.pop(index)
            self._counts.recovery_s.setdefault(fault, []).append(time.monotonic() - since)


def _said(error: Exception) -> object:
    """What went wrong in another process, without the traceback that Ray puts around it."""
    return getattr(error, "cause", error)
