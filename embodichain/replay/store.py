"""One shard's memory. Takes episodes, hands on batches. Owns: what is held, which tile comes next, and the bound.

Every held episode keeps the tiles of its current pass in random order; a new pass draws a new random phase. A pass
is written to the ledger before its first tile leaves, and `max_reuse` passes are all there are, so the bound holds
by construction; per-pair counters prove it.

**Choice of windows.** A selector names the episode (`replay.selectors`), its current pass the tile. The default is
uniform over episodes, without replacement until each has given one window, then round again: a request is as mixed as
what is held allows, and the newest episode is as likely as the oldest, whatever their lengths. (Uniform over tiles
would favour long tasks; oldest first would starve the freshest.) With a fresh rate (`replay.rates`) there are two
selectors, one over the episodes in their first pass and one over the others, and credit says whose turn it is.

Nothing here blocks except `wait_insert` and `wait_sample`; Ray, threads and time-outs are the caller's.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from embodichain.contracts import Batch, Episode, WindowSpec
from embodichain.replay.accounting import Delivery, ReplayStats, ReuseAccounting
from embodichain.replay.choice import EpisodeChoice, Held
from embodichain.replay.config import ReplayConfig
from embodichain.replay.gather import Source, gather, prepare
from embodichain.replay.ledger import PassLedger
from embodichain.replay.limiter import MinSize, RateLimiter, SampleToInsertRatio
from embodichain.replay.rates import InsertRate
from embodichain.replay.schema import Schema
from embodichain.replay.selectors import MAX_PRIORITY
from embodichain.replay.tiling import available, check_window, draw_pass

HOLDING_BACK_S = 10.0  # so long after an append was refused the shard still counts as holding producers back


class AppendStatus(StrEnum):
    """What became of an episode: `RETRY` means the limiter holds it back, `FULL` that a static set is complete."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    RETRY = "retry"
    FULL = "full"


class Pick(NamedTuple):
    """An episode, the tile of it that leaves, the pass that this belongs to, and the tile's counters."""

    held: Held
    tile: tuple[int, int]
    pass_index: int
    counters: np.ndarray


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
        self.choice = EpisodeChoice(config, window)
        self.schema: Schema | None = None
        self.held: OrderedDict[str, Held] = OrderedDict()
        self.seen: set[str] = set()
        self.bytes_held = 0
        self.complete = False
        self._clock = clock
        self._insert_rate = InsertRate(config.episodes_per_second, clock()) if config.episodes_per_second else None
        self._no_room = False
        self._refused_at = -math.inf

    def append(self, episode: Episode) -> AppendStatus:
        """Take an episode in, once per recipe; may evict the oldest to make room.

        Raises:
            ValueError: if the episode breaks the contract, differs from those held, is too long to be held, or shows
                that the capacity is too small for `min_size_pairs`.
        """
        episode.check()
        schema = Schema.of(episode)
        with self.limiter.condition:
            self._refuse(episode, schema)
            status = self._status(episode.recipe.id)
            if status is AppendStatus.ACCEPTED:
                status = self._enter(episode, schema)
            if status is AppendStatus.DUPLICATE:
                self.accounting.stats.duplicates += 1
            elif status is not AppendStatus.ACCEPTED:
                self._refused_at = time.monotonic()
            return status

    def sample(self, windows: int, out: Mapping[str, np.ndarray] | None = None) -> SampleReply | None:
        """Up to `windows` windows: fewer where the limiter or the bound allows no more, None where they allow none.

        They are made in the arrays of `out` (as in `gather`), or else in fresh ones. The uses are debited, and new
        passes are in the ledger, before this returns.
        """
        if windows < 1:
            raise ValueError(f"windows={windows}: expected at least 1")
        with self.limiter.condition:
            picks, fresh = self._pick(windows)
            if not picks:
                return None
            self.ledger.mark_use()
            self.ledger.flush()
        tiles = np.array([pick.tile for pick in picks], dtype=np.int64)
        passes = np.array([pick.pass_index for pick in picks], dtype=np.int64)
        batch, context = gather(
            [pick.held.source for pick in picks], tiles, passes, self.window, shard=self.shard, out=out
        )
        with self.limiter.condition:
            self.accounting.stats.context_reads += int(context.sum())
        return SampleReply(batch=batch, fresh=np.array(fresh, dtype=np.int64), context=context)

    def update_priorities(self, priorities: Mapping[str, float]) -> int:
        """Set the priorities, 0 to 1e12, of held episodes by recipe id; others are passed over.

        Returns:
            How many were set.

        Raises:
            ValueError: for a priority out of range; none is set then.
        """
        for key, priority in priorities.items():
            if not 0 <= priority <= MAX_PRIORITY:
                raise ValueError(f"priority of {key}={priority}: expected 0 to {MAX_PRIORITY:g}")
        with self.limiter.condition:
            known = [(self.held[key], priority) for key, priority in priorities.items() if key in self.held]
            for held, priority in known:
                self.choice.prioritise(held, float(priority))
            return len(known)

    def wait_insert(self, timeout_s: float) -> bool:
        """Wait until an append would not be told to retry; False after `timeout_s` seconds."""
        until = time.monotonic() + timeout_s
        with self.limiter.condition:
            while (pause_s := self._hold_back_s()) > 0:
                left_s = until - time.monotonic()
                if left_s <= 0:
                    return False
                self.limiter.condition.wait(min(left_s, pause_s, threading.TIMEOUT_MAX))
            return True

    def wait_sample(self, timeout_s: float) -> bool:
        """Wait until at least one whole window can be sampled; False after `timeout_s` seconds."""
        return self.limiter.await_that(
            lambda: self.choice.ready and self.limiter.can_sample(self.window.pairs), timeout_s
        )

    def stats(self) -> ReplayStats:
        """A copy of every counter."""
        with self.limiter.condition:
            stats = ReplayStats.from_dict(asdict(self.accounting.stats))
            stats.episodes_held = len(self.held)
            stats.pairs_held = self.limiter.held
            stats.bytes_held = self.bytes_held
            stats.limiter_error = self.limiter.error
            stats.complete_sets = int(self.complete)
            stats.holding_back = int(time.monotonic() - self._refused_at < HOLDING_BACK_S)
            if self.config.mode == "stream":
                stats.uses_left = sum(self._uses_left(held) for held in self.held.values())
            return stats

    def hold(self, held: Held) -> None:
        """Put an episode in as it is, uncounted; `restore` uses this."""
        self.held[held.key] = held
        self.seen.add(held.key)
        self.bytes_held += held.source.nbytes()
        self.place(held)

    def place(self, held: Held) -> None:
        """Let an episode's next tile be chosen, if it has one."""
        unused = held.pool is self.choice.unused
        self.choice.place(held, spent=self._spent(held))
        if unused and held.pool is not self.choice.unused:
            self._no_room = False

    def drop(self, recipe_id: str, *, exhausted: bool) -> None:
        """Let an episode go and count why."""
        held = self.held.pop(recipe_id)
        self.choice.place(held, spent=True)
        self.bytes_held -= held.source.nbytes()
        self._no_room = False
        self.accounting.evict(held.uses, exhausted=exhausted)
        self.limiter.delete(held.uses.size)

    def _spent(self, held: Held) -> bool:
        return self.config.mode == "stream" and held.passes >= self.config.max_reuse and not held.tiles

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

    def _status(self, recipe_id: str) -> AppendStatus:
        stream = self.config.mode == "stream"
        spent = stream and self.ledger.started(recipe_id) >= self.config.max_reuse
        if recipe_id in self.seen or spent:
            return AppendStatus.DUPLICATE
        if self.complete:
            return AppendStatus.FULL
        return AppendStatus.ACCEPTED if self._hold_back_s() <= 0 else AppendStatus.RETRY

    def _hold_back_s(self) -> float:
        """Seconds until a producer should ask again: 0 if an episode may enter, infinite if a sample comes first."""
        # With nothing to sample, holding producers back could only be a deadlock.
        if len(self.choice) and (self._no_room or self.choice.enough or not self.limiter.can_insert()):
            return math.inf
        return 0.0 if self._insert_rate is None else self._insert_rate.wait_s(self._clock())

    def _enter(self, episode: Episode, schema: Schema) -> AppendStatus:
        """Make room and insert, or say why not."""
        source = prepare(episode, self._clock())
        if self.window.mode == "boundary":
            inside = np.append(available(source.length, source.changes, self.window), False)
            source = replace(source, label_valid=source.label_valid & inside)
        if not source.labels():
            self.seen.add(source.recipe_id)
            self.accounting.stats.unusable_episodes += 1
            return AppendStatus.ACCEPTED
        victims = self._victims(source)
        if victims is None:
            self.complete = self.config.mode == "static"
            self._no_room = not self.complete
            return AppendStatus.FULL if self.complete else AppendStatus.RETRY
        for victim in victims:
            self.drop(victim.key, exhausted=False)
        self.schema = schema
        self._insert(source, episode.recipe.task)
        return AppendStatus.ACCEPTED

    def _victims(self, source: Source) -> list[Held] | None:
        """Who has to leave, oldest first; None if nobody may: a static set is fixed, and what waits unused stays."""
        stream, paced = self.config.mode == "stream", self.choice.rate is not None
        candidates = (held for held in self.held.values() if stream and not (paced and held.unused))
        episodes, pairs, size = len(self.held) + 1, self.limiter.held + source.labels(), self.bytes_held
        size += source.nbytes()
        victims: list[Held] = []
        key = self.config.exceeded(1, source.labels(), source.nbytes())
        if key:
            raise self._too_small(key, 0)
        while key := self.config.exceeded(episodes, pairs, size):
            exceeded, victim = key, next(candidates, None)
            if victim is None:
                if self.limiter.held < self.config.min_size_pairs:
                    raise self._too_small(key, self.limiter.held)
                return None
            victims.append(victim)
            episodes, pairs, size = episodes - 1, pairs - victim.uses.size, size - victim.source.nbytes()
        if victims and pairs < self.config.min_size_pairs:
            raise self._too_small(exceeded, pairs)
        return victims

    def _too_small(self, key: str, pairs: int) -> ValueError:
        return ValueError(
            f"replay.{key}={getattr(self.config, key)} in a shard: expected more; {pairs} pairs would be held at the "
            f"most, and nothing is sampled below its part of replay.min_size_pairs, {self.config.min_size_pairs}"
        )

    def _insert(self, source: Source, task: str) -> None:
        pairs, passes = source.labels(), self.ledger.started(source.recipe_id)
        counters = self.accounting.insert(task, pairs, passes)
        self.hold(
            Held(
                source=source,
                task=task,
                uses=counters,
                passes=passes,
                window_index=self.accounting.stats.windows,
                priority=self._first_priority(),
            )
        )
        if self._insert_rate is not None:
            self._insert_rate.take()
        self.limiter.sample(pairs * passes)
        self.limiter.insert(pairs)

    def _first_priority(self) -> float:
        """The largest one held, so that nobody waits for a first look."""
        if self.config.selector != "prioritised":
            return 1.0
        return max((held.priority for held in self.held.values()), default=1.0)

    def _pick(self, windows: int) -> tuple[list[Pick], list[int]]:
        """Take tiles off and debit them; also returns the first uses in each."""
        picks: list[Pick] = []
        fresh: list[int] = []
        undebited: set[str] = set()
        left = self.limiter.room()
        for key in self.choice.draw(windows, self.rng):
            held = self.held[key]
            if not held.tiles:
                if key in undebited:  # a pair may come a second time: those before have to be counted first
                    fresh += self._debit(picks[len(fresh) :])
                    undebited.clear()
                self._start_pass(held)
            counters = held.counters(*held.tiles[-1])
            if counters.size > left:
                break
            left -= counters.size
            self.choice.deliver(held, counters.size)
            picks.append(Pick(held, held.tiles.pop(), held.passes - 1, counters))
            undebited.add(key)
            self.place(held)
        fresh += self._debit(picks[len(fresh) :])
        for held in {pick.held.key: pick.held for pick in picks if self._spent(pick.held)}.values():
            self.drop(held.key, exhausted=True)
        return picks, fresh

    def _start_pass(self, held: Held) -> None:
        held.passes += 1
        self.ledger.record(held.key, held.uses.size, held.passes)
        tiles = draw_pass(held.source.length, held.source.changes, self.window, self.rng)
        shuffled = (tiles[index] for index in self.rng.permutation(len(tiles)).tolist())
        held.tiles = [tile for tile in shuffled if held.source.labels(*tile)]  # the rest has nothing to learn from

    def _debit(self, picks: Sequence[Pick]) -> list[int]:
        """Count the uses of tiles that share no pair; returns the first uses in each."""
        if not picks:
            return []
        now, windows = self._clock(), self.accounting.stats.windows
        deliveries = [
            Delivery(
                pick.held.task,
                pick.counters,
                now - pick.held.source.inserted_at,
                windows + index - pick.held.window_index,
            )
            for index, pick in enumerate(picks)
        ]
        self.limiter.sample(sum(item.counters.size for item in deliveries))
        return self.accounting.deliver(deliveries)


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
