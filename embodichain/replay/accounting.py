"""What was inserted, used, reused and lost, counted pair by pair. Owns: every figure of experience throughput.

A *use* of a pair is one delivered window with it under the action-loss mask. A pair's *first use* makes it a unique
pair; experience throughput is first uses per learner step. Reads as context are counted apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby, zip_longest
from typing import Any, NamedTuple

import numpy as np


@dataclass(kw_only=True)
class TaskCount:
    """Counts of one task; the same as in `ReplayStats`, of which they are parts that sum up to the whole.

    Attributes:
        episodes: accepted episodes.
        pairs: their pairs.
        windows: delivered windows.
        uses: delivered pair uses.
        fresh: first uses among them, so unique pairs.
        assumed_uses: uses that may have happened before a restart.
        age_sum_s: sum of the windows' ages, seconds.
        staleness_sum: sum of the windows' staleness, windows.
        reuse_histogram: entry c is the number of pairs with exactly c uses.
    """

    episodes: int = 0
    pairs: int = 0
    windows: int = 0
    uses: int = 0
    fresh: int = 0
    assumed_uses: int = 0
    age_sum_s: float = 0.0
    staleness_sum: int = 0
    reuse_histogram: list[int] = field(default_factory=lambda: [0])

    @property
    def age_mean_s(self) -> float:
        """Mean seconds between an episode's insertion and a window's delivery."""
        return self.age_sum_s / self.windows if self.windows else 0.0

    @property
    def staleness_mean(self) -> float:
        """Mean windows that the shard delivered between an episode's insertion and a window of it."""
        return self.staleness_sum / self.windows if self.windows else 0.0


@dataclass(kw_only=True)
class ReplayStats:
    """Counters of one shard, or of several after `merge`. All lifetimes count from the last empty start or restore.

    Attributes:
        episodes_inserted: accepted episodes.
        pairs_inserted: their pairs.
        duplicates: appends of a recipe that was already known.
        unusable_episodes: episodes without a single available pair (mode `boundary`: no segment change), not kept.
        windows: delivered windows.
        uses: delivered pair uses.
        unique_pairs: pairs whose first use was delivered.
        context_reads: pairs delivered without being under the loss.
        assumed_uses: uses that the ledger says may have happened before a restart; never part of `uses`.
        exhausted_pairs: pairs that left because all their passes were used.
        evicted_pairs: pairs that left to make room.
        evicted_unused_pairs: those of them that were never used: generated for nothing.
        age_sum_s: sum over windows of seconds between insertion and delivery.
        staleness_sum: sum over windows of the number of windows that the shard had delivered since the episode came:
            the learner's own measure of age. Times shards / `learner.batch_windows` they are learner steps.
        reuse_histogram: entry c is the number of pairs, held or gone, with exactly c uses (assumed ones included).
        tasks: the same by task.
        episodes_held: episodes in memory.
        pairs_held: their pairs.
        uses_left: uses that the bound still allows; 0 in static mode, where nothing bounds them.
        bytes_held: bytes of their arrays.
        limiter_error: the limiter's error in pair uses, summed over shards.
        complete_sets: shards whose static set is complete.
        holding_back: shards that turned a producer away within the last seconds.
    """

    episodes_inserted: int = 0
    pairs_inserted: int = 0
    duplicates: int = 0
    unusable_episodes: int = 0
    windows: int = 0
    uses: int = 0
    unique_pairs: int = 0
    context_reads: int = 0
    assumed_uses: int = 0
    exhausted_pairs: int = 0
    evicted_pairs: int = 0
    evicted_unused_pairs: int = 0
    age_sum_s: float = 0.0
    staleness_sum: int = 0
    reuse_histogram: list[int] = field(default_factory=lambda: [0])
    tasks: dict[str, TaskCount] = field(default_factory=dict)
    episodes_held: int = 0
    pairs_held: int = 0
    uses_left: int = 0
    bytes_held: int = 0
    limiter_error: float = 0.0
    complete_sets: int = 0
    holding_back: int = 0

    @property
    def reuse_max(self) -> int:
        """The most uses that any pair has had."""
        return max((count for count, pairs in enumerate(self.reuse_histogram) if pairs), default=0)

    @property
    def reuse_mean(self) -> float:
        """Uses per pair, over the pairs that were used; 0 before the first use."""
        used = sum(self.reuse_histogram[1:])
        return sum(c * n for c, n in enumerate(self.reuse_histogram)) / used if used else 0.0

    @property
    def age_mean_s(self) -> float:
        """Mean seconds between an episode's insertion and a window's delivery."""
        return self.age_sum_s / self.windows if self.windows else 0.0

    @property
    def staleness_mean(self) -> float:
        """Mean windows that a shard delivered between an episode's insertion and a window of it."""
        return self.staleness_sum / self.windows if self.windows else 0.0

    def as_dict(self) -> dict[str, object]:
        """JSON-able, with the derived figures."""
        derived = ("reuse_max", "reuse_mean", "age_mean_s", "staleness_mean")
        return asdict(self) | {name: getattr(self, name) for name in derived}

    @classmethod
    def merge(cls, parts: Iterable[ReplayStats]) -> ReplayStats:
        """The sum over shards."""
        total = cls()
        for part in parts:
            _add(total, part)
            for name, count in part.tasks.items():
                _add(total.tasks.setdefault(name, TaskCount()), count)
        return total

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ReplayStats:
        """Inverse of `dataclasses.asdict`."""
        tasks = {name: TaskCount(**count) for name, count in data["tasks"].items()}
        return cls(**{**data, "tasks": tasks})


def _add(into: ReplayStats | TaskCount, part: ReplayStats | TaskCount) -> None:
    """Add every number and the histogram; not `tasks`."""
    for item in fields(into):
        if item.name == "reuse_histogram":
            pairs = zip_longest(into.reuse_histogram, part.reuse_histogram, fillvalue=0)
            into.reuse_histogram = [a + b for a, b in pairs]
        elif item.name != "tasks":
            setattr(into, item.name, getattr(into, item.name) + getattr(part, item.name))


class Delivery(NamedTuple):
    """A tile that leaves.

    Attributes:
        task: its episode's task.
        counters: u32[n], a view of the tile's counters, which will be incremented; n >= 1.
        age_s: seconds since the episode was inserted.
        staleness: windows delivered since then, this one not included.
    """

    task: str
    counters: np.ndarray
    age_s: float
    staleness: int


class ReuseAccounting:
    """Keeps a `ReplayStats` true while a store inserts, delivers and evicts. Not thread-safe: the store locks."""

    def __init__(self, stats: ReplayStats | None = None) -> None:
        self.stats = stats or ReplayStats()

    def insert(self, task: str, pairs: int, passes_used: int) -> np.ndarray:
        """Count an accepted episode.

        Args:
            task: its task.
            pairs: its pairs that may be imitated.
            passes_used: passes that the ledger knows already; they count as assumed uses of every pair.

        Returns:
            u32[T], the per-pair use counters that deliveries increment.
        """
        count = self._task(task)
        self.stats.episodes_inserted += 1
        self.stats.pairs_inserted += pairs
        count.episodes += 1
        count.pairs += pairs
        for part in (self.stats, count):
            part.assumed_uses += pairs * passes_used
            _count(part.reuse_histogram, passes_used, pairs)
        return np.full(pairs, passes_used, dtype=np.uint32)

    def deliver(self, deliveries: Sequence[Delivery]) -> list[int]:
        """Count one use of each pair of some delivered tiles, no two of which share a pair.

        Returns:
            How many first uses were in each.
        """
        fresh = self._advance([(item.task, item.counters) for item in deliveries])
        for task, own in groupby(sorted(zip(deliveries, fresh, strict=True), key=_task_of), key=_task_of):
            items, new = zip(*own, strict=True)
            count = self.stats.tasks[task]
            count.fresh += sum(new)
            self.stats.unique_pairs += sum(new)
            for part in (self.stats, count):
                part.windows += len(items)
                part.uses += sum(item.counters.size for item in items)
                part.age_sum_s += sum(item.age_s for item in items)
                part.staleness_sum += sum(item.staleness for item in items)
        return fresh

    def assume(self, task: str, counters: np.ndarray) -> None:
        """Count one assumed use of each pair, in place: a started pass that may have been delivered unseen."""
        self._advance([(task, counters)])
        for part in (self.stats, self._task(task)):
            part.assumed_uses += counters.size

    def evict(self, counters: np.ndarray, *, exhausted: bool) -> None:
        """Count an episode that leaves, by its counters u32[T]."""
        if exhausted:
            self.stats.exhausted_pairs += counters.size
        else:
            self.stats.evicted_pairs += counters.size
            self.stats.evicted_unused_pairs += int(np.sum(counters == 0))

    def _advance(self, tiles: Sequence[tuple[str, np.ndarray]]) -> list[int]:
        """Increment the counters of some tiles, at least one pair in each, by task; how many were 0 in each."""
        joined = np.concatenate([counters for _, counters in tiles])
        starts = np.cumsum([0, *(counters.size for _, counters in tiles[:-1])])
        lowest = np.minimum.reduceat(joined, starts).tolist()
        alike = np.maximum.reduceat(joined, starts) == lowest
        moved: defaultdict[tuple[str, int], int] = defaultdict(int)
        fresh: list[int] = []
        for (task, counters), low, same in zip(tiles, lowest, alike.tolist(), strict=True):
            if same:  # but after a recovery all are
                moved[task, low] += counters.size
                fresh.append(0 if low else counters.size)
            else:
                found = dict(zip(*_counts(counters), strict=True))
                fresh.append(found.get(0, 0))
                for before, pairs in found.items():
                    moved[task, before] += pairs
            counters += 1
        for (task, before), pairs in moved.items():
            for part in (self.stats, self._task(task)):
                _count(part.reuse_histogram, before, -pairs)
                _count(part.reuse_histogram, before + 1, pairs)
        return fresh

    def _task(self, task: str) -> TaskCount:
        return self.stats.tasks.setdefault(task, TaskCount())


def _task_of(counted: tuple[Delivery, int]) -> str:
    return counted[0].task


def _counts(counters: np.ndarray) -> tuple[list[int], list[int]]:
    values, counts = np.unique(counters, return_counts=True)
    return values.tolist(), counts.tolist()


def _count(histogram: list[int], uses: int, pairs: int) -> None:
    if uses >= len(histogram):
        histogram.extend([0] * (uses + 1 - len(histogram)))
    histogram[uses] += pairs
