"""One shard's memory. Takes episodes, hands on batches. Owns: what is held, which tile comes next, and the bound.

Every held episode keeps the tiles of its current pass in random order; a new pass draws a new random phase. A pass
is written to the ledger before its first tile leaves, and `max_reuse` passes are all there are, so the bound holds
by construction; per-pair counters prove it.

**Choice of windows.** Uniform over episodes, without replacement until each has given one window, then round
again: a request is as mixed as what is held allows, and the newest episode is as likely as the oldest, whatever
their lengths. (Uniform over tiles would favour long tasks; oldest first would starve the freshest.)

Nothing here blocks except `wait_insert` and `wait_sample`; Ray, threads and time-outs are the caller's.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum

import numpy as np

from embodichain.contracts import Batch, Episode, WindowSpec
from embodichain.replay.accounting import ReplayStats, ReuseAccounting
from embodichain.replay.config import ReplayConfig
from embodichain.replay.gather import Source, gather, prepare
from embodichain.replay.ledger import PassLedger
from embodichain.replay.limiter import MinSize, RateLimiter, SampleToInsertRatio
from embodichain.replay.schema import Schema
from embodichain.replay.tiling import check_window, draw_phase, tile


class AppendStatus(StrEnum):
    """What became of an episode: `RETRY` means the limiter holds it back, `FULL` that a static set is complete."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    RETRY = "retry"
    FULL = "full"


@dataclass(kw_only=True)
class Held:
    """An episode in memory: its arrays, its counters and what is left of the current pass.

    `uses` counts the pairs that may be imitated, in order; the others are context only, whatever is delivered.
    `tiles` is a stack of `(start, stop)`; `passes` counts those started (1 = the first).
    """

    source: Source
    task: str
    uses: np.ndarray
    passes: int = 0
    tiles: list[tuple[int, int]] = field(default_factory=list)
    slot: int = -1


@dataclass(frozen=True, kw_only=True)
class SampleReply:
    """A batch and what it cost.

    Attributes:
        batch: B windows.
        fresh: i64[B], first uses in each window.
        context: i64[B], pairs of each window that are read but carry no loss.
    """

    batch: Batch
    fresh: np.ndarray
    context: np.ndarray


class ShardStore:
    """The memory of one shard. Thread-safe.

    Args:
        config: this shard's share (`ReplayConfig.share`).
        window: how windows are cut.
        ledger: passes started in earlier lives; in memory only by default.
        seed: of phases, tile orders and choices.
        shard: index, written into batches.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        config: ReplayConfig,
        window: WindowSpec,
        *,
        ledger: PassLedger | None = None,
        seed: int = 0,
        shard: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_window(window, 1)
        self.config = config
        self.window = window
        self.ledger = ledger or PassLedger()
        self.shard = shard
        self.rng = np.random.default_rng((seed, shard))
        self.limiter = make_limiter(config, window)
        self.accounting = ReuseAccounting()
        self.schema: Schema | None = None
        self.held: OrderedDict[str, Held] = OrderedDict()
        self.seen: set[str] = set()
        self._slots: list[str] = []
        self._clock = clock

    def append(self, episode: Episode) -> AppendStatus:
        """Take an episode in, once per recipe; may evict the oldest to make room.

        Raises:
            ValueError: if the episode breaks the contract, differs from those held, or is too long to be held.
        """
        episode.check()
        schema = Schema.of(episode)
        with self.limiter.condition:
            self._refuse(episode, schema)
            status = self._status(episode)
            if status is AppendStatus.ACCEPTED:
                self._insert(episode, schema)
            elif status is AppendStatus.DUPLICATE:
                self.accounting.stats.duplicates += 1
            return status

    def sample(self, windows: int) -> SampleReply | None:
        """Up to `windows` windows: fewer where the limiter or the bound allows no more, None where they allow none.

        The uses are debited, and new passes are in the ledger, before this returns.
        """
        if windows < 1:
            raise ValueError(f"windows={windows}: expected at least 1")
        with self.limiter.condition:
            picks = self._pick(windows)
            if not picks:
                return None
            fresh = np.array([self._debit(held, bounds) for held, bounds, _ in picks], dtype=np.int64)
            self.ledger.mark_use()
            self.ledger.flush()
        tiles = np.array([bounds for _, bounds, _ in picks], dtype=np.int64)
        passes = np.array([index for _, _, index in picks], dtype=np.int64)
        batch, context = gather([held.source for held, _, _ in picks], tiles, passes, self.window, shard=self.shard)
        with self.limiter.condition:
            self.accounting.stats.context_reads += int(context.sum())
        return SampleReply(batch=batch, fresh=fresh, context=context)

    def wait_insert(self, timeout_s: float) -> bool:
        """Wait until an append would not be told to retry; False after `timeout_s` seconds."""
        return self.limiter.await_that(self._may_insert, timeout_s)

    def wait_sample(self, timeout_s: float) -> bool:
        """Wait until at least one whole window can be sampled; False after `timeout_s` seconds."""
        return self.limiter.await_that(
            lambda: bool(self._slots) and self.limiter.can_sample(self.window.pairs), timeout_s
        )

    def stats(self) -> ReplayStats:
        """A copy of every counter."""
        with self.limiter.condition:
            stats = ReplayStats.from_dict(asdict(self.accounting.stats))
            stats.episodes_held = len(self.held)
            stats.pairs_held = self.limiter.held
            stats.bytes_held = sum(held.source.nbytes() for held in self.held.values())
            stats.limiter_error = self.limiter.error
            if self.config.mode == "stream":
                stats.uses_left = sum(self._uses_left(held) for held in self.held.values())
            return stats

    def hold(self, held: Held) -> None:
        """Put an episode in as it is, uncounted; `restore` uses this."""
        recipe_id = held.source.recipe_id
        held.slot = len(self._slots)
        self._slots.append(recipe_id)
        self.held[recipe_id] = held
        self.seen.add(recipe_id)

    def drop(self, recipe_id: str, *, exhausted: bool) -> None:
        """Let an episode go and count why."""
        held = self.held.pop(recipe_id)
        last = self._slots.pop()
        if last != recipe_id:
            self._slots[held.slot] = last
            self.held[last].slot = held.slot
        self.accounting.evict(held.uses, exhausted=exhausted)
        self.limiter.delete(held.uses.size)

    def _uses_left(self, held: Held) -> int:
        return (self.config.max_reuse - held.passes) * held.uses.size + sum(held.source.labels(*t) for t in held.tiles)

    def _refuse(self, episode: Episode, schema: Schema) -> None:
        if self.schema is None:
            check_window(self.window, episode.tau)
        else:
            self.schema.require(schema)
        room = self.config.capacity_pairs - self.config.min_size_pairs + 1
        if episode.pairs > room:
            raise ValueError(
                f"episode.action: {episode.pairs} steps, expected at most {room} (a shard's capacity_pairs - "
                "min_size_pairs + 1); making room for it could leave too few pairs to sample from, for ever"
            )

    def _status(self, episode: Episode) -> AppendStatus:
        recipe_id, stream = episode.recipe.id, self.config.mode == "stream"
        spent = stream and self.ledger.started(recipe_id) >= self.config.max_reuse
        if recipe_id in self.seen or spent:
            return AppendStatus.DUPLICATE
        if not stream and self.limiter.held + episode.pairs > self.config.capacity_pairs:
            return AppendStatus.FULL
        return AppendStatus.ACCEPTED if self._may_insert() else AppendStatus.RETRY

    def _may_insert(self) -> bool:
        # With nothing to sample, holding producers back could only be a deadlock.
        return not self._slots or self.limiter.can_insert()

    def _insert(self, episode: Episode, schema: Schema) -> None:
        while self.held and self.limiter.held + episode.pairs > self.config.capacity_pairs:
            self.drop(next(iter(self.held)), exhausted=False)
        self.schema = schema
        source, task = prepare(episode, self._clock()), episode.recipe.task
        pairs, passes = source.labels(), self.ledger.started(episode.recipe.id)
        counters = self.accounting.insert(task, pairs, passes)
        self.hold(Held(source=source, task=task, uses=counters, passes=passes))
        self.limiter.sample(pairs * passes)
        self.limiter.insert(pairs)

    def _pick(self, windows: int) -> list[tuple[Held, tuple[int, int], int]]:
        picks: list[tuple[Held, tuple[int, int], int]] = []
        budget = 0
        while len(picks) < windows and self._slots:
            count = min(windows - len(picks), len(self._slots))
            chosen = [self._slots[i] for i in self.rng.choice(len(self._slots), count, replace=False)]
            before = len(picks)
            for recipe_id in chosen:
                held = self.held[recipe_id]
                if not self._next_tile_ready(held):
                    continue
                pairs = held.source.labels(*held.tiles[-1])
                if not self.limiter.can_sample(budget + pairs):
                    return picks
                budget += pairs
                picks.append((held, held.tiles.pop(), held.passes - 1))
            if len(picks) == before:
                break
        return picks

    def _next_tile_ready(self, held: Held) -> bool:
        if held.tiles:
            return True
        if self.config.mode == "stream" and held.passes >= self.config.max_reuse:
            return False
        held.passes += 1
        self.ledger.record(held.source.recipe_id, held.uses.size, held.passes)
        bounds = tile(held.source.length, self.window, draw_phase(self.window, self.rng))
        tiles = [(int(a), int(b)) for a, b in self.rng.permutation(bounds)]
        held.tiles = [bounds for bounds in tiles if held.source.labels(*bounds)]  # the rest has nothing to learn from
        return True

    def _debit(self, held: Held, bounds: tuple[int, int]) -> int:
        start, stop = (held.source.labels(0, step) for step in bounds)
        age_s = self._clock() - held.source.inserted_at
        fresh = self.accounting.deliver(held.task, held.uses[start:stop], age_s)
        self.limiter.sample(stop - start)
        recipe_id = held.source.recipe_id
        exhausted = self.config.mode == "stream" and held.passes >= self.config.max_reuse and not held.tiles
        if exhausted and recipe_id in self.held:
            self.drop(recipe_id, exhausted=True)
        return fresh


def make_limiter(config: ReplayConfig, window: WindowSpec) -> RateLimiter:
    """The limiter of one shard: `SampleToInsertRatio` where a ratio is set, else `MinSize`."""
    if config.samples_per_insert is None:
        return MinSize(config.min_size_pairs)
    return SampleToInsertRatio(
        samples_per_insert=config.samples_per_insert,
        min_size_to_sample=config.min_size_pairs,
        error_buffer=config.error_buffer_uses(window),
        window_pairs=window.pairs,
    )
