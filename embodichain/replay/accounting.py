"""What was inserted, used, reused and lost, counted pair by pair. Owns: every figure of experience throughput.

A *use* of a pair is one delivered window with it under the action-loss mask. A pair's *first use* makes it a unique
pair; experience throughput is first uses per learner step. Reads as context are counted apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np


@dataclass(kw_only=True)
class TaskCount:
    """Counts of one task: episodes and pairs inserted, pair uses, first uses."""

    episodes: int = 0
    pairs: int = 0
    uses: int = 0
    fresh: int = 0


@dataclass(kw_only=True)
class ReplayStats:
    """Counters of one shard, or of several after `merge`. All lifetimes count from the last empty start or restore.

    Attributes:
        episodes_inserted: accepted episodes.
        pairs_inserted: their pairs.
        duplicates: appends of a recipe that was already known.
        windows: delivered windows.
        uses: delivered pair uses.
        unique_pairs: pairs whose first use was delivered.
        context_reads: pairs delivered without being under the loss.
        assumed_uses: uses that the ledger says may have happened before a restart; never part of `uses`.
        exhausted_pairs: pairs that left because all their passes were used.
        evicted_pairs: pairs that left to make room.
        evicted_unused_pairs: those of them that were never used: generated for nothing.
        age_sum_s: sum over windows of seconds between insertion and delivery.
        reuse_histogram: entry c is the number of pairs, held or gone, with exactly c uses (assumed ones included).
        tasks: the same by task.
        episodes_held: episodes in memory.
        pairs_held: their pairs.
        uses_left: uses that the bound still allows; 0 in static mode, where nothing bounds them.
        bytes_held: bytes of their arrays.
        limiter_error: the limiter's error in pair uses, summed over shards.
    """

    episodes_inserted: int = 0
    pairs_inserted: int = 0
    duplicates: int = 0
    windows: int = 0
    uses: int = 0
    unique_pairs: int = 0
    context_reads: int = 0
    assumed_uses: int = 0
    exhausted_pairs: int = 0
    evicted_pairs: int = 0
    evicted_unused_pairs: int = 0
    age_sum_s: float = 0.0
    reuse_histogram: list[int] = field(default_factory=lambda: [0])
    tasks: dict[str, TaskCount] = field(default_factory=dict)
    episodes_held: int = 0
    pairs_held: int = 0
    uses_left: int = 0
    bytes_held: int = 0
    limiter_error: float = 0.0

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

    def as_dict(self) -> dict[str, object]:
        """JSON-able, with the derived figures."""
        derived = {"reuse_max": self.reuse_max, "reuse_mean": self.reuse_mean, "age_mean_s": self.age_mean_s}
        return asdict(self) | derived

    @classmethod
    def merge(cls, parts: Iterable[ReplayStats]) -> ReplayStats:
        """The sum over shards."""
        total = cls()
        for part in parts:
            for item in fields(cls):
                value = getattr(part, item.name)
                if item.name == "reuse_histogram":
                    total.reuse_histogram = _add(total.reuse_histogram, value)
                elif item.name == "tasks":
                    _add_tasks(total.tasks, value)
                else:
                    setattr(total, item.name, getattr(total, item.name) + value)
        return total

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ReplayStats:
        """Inverse of `dataclasses.asdict`."""
        tasks = {name: TaskCount(**count) for name, count in data["tasks"].items()}
        return cls(**{**data, "tasks": tasks})


def _add(left: list[int], right: Sequence[int]) -> list[int]:
    size = max(len(left), len(right))
    padded = [list(x) + [0] * (size - len(x)) for x in (left, right)]
    return [a + b for a, b in zip(*padded, strict=True)]


def _add_tasks(into: dict[str, TaskCount], tasks: dict[str, TaskCount]) -> None:
    for name, count in tasks.items():
        have = into.setdefault(name, TaskCount())
        for item in fields(TaskCount):
            setattr(have, item.name, getattr(have, item.name) + getattr(count, item.name))


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
            u32[T], the per-pair use counters that `deliver` increments.
        """
        self.stats.episodes_inserted += 1
        self.stats.pairs_inserted += pairs
        self.stats.assumed_uses += pairs * passes_used
        count = self._task(task)
        count.episodes += 1
        count.pairs += pairs
        self._histogram(passes_used, pairs)
        return np.full(pairs, passes_used, dtype=np.uint32)

    def deliver(self, task: str, counters: np.ndarray, age_s: float) -> int:
        """Count one use of each pair of a delivered tile.

        Args:
            task: the episode's task.
            counters: u32[n], a view of the tile's counters; incremented in place.
            age_s: seconds since the episode was inserted.

        Returns:
            How many of these uses were first uses.
        """
        fresh = self._advance(counters)
        self.stats.windows += 1
        self.stats.uses += counters.size
        self.stats.unique_pairs += fresh
        self.stats.age_sum_s += age_s
        count = self._task(task)
        count.uses += counters.size
        count.fresh += fresh
        return fresh

    def assume(self, counters: np.ndarray) -> None:
        """Count one assumed use of each pair, in place: a started pass that may have been delivered unseen."""
        self._advance(counters)
        self.stats.assumed_uses += counters.size

    def evict(self, counters: np.ndarray, *, exhausted: bool) -> None:
        """Count an episode that leaves, by its counters u32[T]."""
        if exhausted:
            self.stats.exhausted_pairs += counters.size
        else:
            self.stats.evicted_pairs += counters.size
            self.stats.evicted_unused_pairs += int(np.sum(counters == 0))

    def _advance(self, counters: np.ndarray) -> int:
        found = np.bincount(counters)
        for before in np.flatnonzero(found):
            self._histogram(int(before), -int(found[before]))
            self._histogram(int(before) + 1, int(found[before]))
        counters += 1
        return int(found[0])

    def _task(self, task: str) -> TaskCount:
        return self.stats.tasks.setdefault(task, TaskCount())

    def _histogram(self, uses: int, pairs: int) -> None:
        histogram = self.stats.reuse_histogram
        if uses >= len(histogram):
            histogram.extend([0] * (uses + 1 - len(histogram)))
        histogram[uses] += pairs


class ExperienceThroughput:
    """First uses per learner step, over the last `window` steps and in all.

    Source: DexWorldModel, arXiv 2604.16484, "experience throughput": unique state-action pairs ingested per training
    iteration.
    """

    def __init__(self, window: int = 100) -> None:
        if window < 1:
            raise ValueError(f"window={window}: expected at least one learner step")
        self._recent: deque[int] = deque(maxlen=window)
        self.steps = 0
        self.pairs = 0

    def step(self, fresh_pairs: int) -> None:
        """Count one learner step that consumed `fresh_pairs` first uses."""
        self._recent.append(fresh_pairs)
        self.steps += 1
        self.pairs += fresh_pairs

    @property
    def recent(self) -> float:
        """Pairs per step over the last `window` steps; 0 before the first."""
        return sum(self._recent) / len(self._recent) if self._recent else 0.0

    @property
    def overall(self) -> float:
        """Pairs per step since the start; 0 before the first."""
        return self.pairs / self.steps if self.steps else 0.0
