"""What a shard holds of an episode, and which episode gives the next window. Owns: the selectors and the fresh rate.

Takes episodes in any state of their passes; hands on keys of episodes that have a tile to give.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from embodichain.contracts import WindowSpec
from embodichain.replay.config import ReplayConfig
from embodichain.replay.gather import Source
from embodichain.replay.rates import FreshRate
from embodichain.replay.selectors import Selector, make_selector


@dataclass(kw_only=True)
class Held:
    """An episode in memory: its arrays, its counters and what is left of the current pass.

    `uses` counts the available pairs, in order; the others are context only, whatever is delivered. `tiles` is a stack
    of `(start, stop)`; `passes` counts those started (1 = the first). `window_index` is how many windows the shard had
    delivered when the episode came, `priority` what a prioritised selector goes by.
    """

    source: Source
    task: str
    uses: np.ndarray
    passes: int = 0
    tiles: list[tuple[int, int]] = field(default_factory=list)
    window_index: int = 0
    priority: float = 1.0
    pool: Selector | None = None

    @property
    def key(self) -> str:
        """The recipe's id."""
        return self.source.recipe_id

    def counters(self, start: int, stop: int) -> np.ndarray:
        """The counters of a tile's pairs, as a view."""
        return self.uses[self.source.labels(0, start) : self.source.labels(0, stop)]

    @property
    def unused(self) -> bool:
        """Whether its next tile is one of the first pass."""
        return self.passes == 0 or (self.passes == 1 and bool(self.tiles))


class EpisodeChoice:
    """The held episodes that have a tile to give. Not thread-safe: the store locks.

    Args:
        config: a shard's share.
        window: how windows are cut.
    """

    def __init__(self, config: ReplayConfig, window: WindowSpec) -> None:
        self.rate: FreshRate | None = None
        self.unused = self.used = make_selector(config.selector, config.priority_exponent)
        per_window = config.fresh_per_window(window)
        if per_window is not None:
            self.rate = FreshRate(per_window, config.fresh_buffer_pairs(window), config.fresh_slack_pairs(window))
            self.used = make_selector(config.selector, config.priority_exponent)
        self.unused_pairs = 0

    def __len__(self) -> int:
        return len(self.unused) if self.rate is None else len(self.unused) + len(self.used)

    @property
    def ready(self) -> bool:
        """Whether there is a window to give now."""
        return self._next_pool() is not None

    @property
    def enough(self) -> bool:
        """Whether so many unused pairs wait that producers should."""
        return self.rate is not None and self.unused_pairs >= self.rate.buffer_pairs

    def keys(self) -> list[str]:
        """All keys; placed again in this order, they give the same choices."""
        return self.unused.keys() + (self.used.keys() if self.rate is not None else [])

    def place(self, held: Held, *, spent: bool) -> None:
        """Put an episode where its next tile belongs, or nowhere if it is spent."""
        pool = None if spent else self.unused if held.unused else self.used
        if pool is held.pool:
            return
        if held.pool is not None:
            held.pool.remove(held.key)
            self._count(held, -1)
        held.pool = pool
        if pool is not None:
            pool.add(held.key, held.priority)
            self._count(held, 1)

    def prioritise(self, held: Held, priority: float) -> None:
        """Change an episode's priority."""
        held.priority = priority
        if held.pool is not None:
            held.pool.update(held.key, priority)

    def draw(self, windows: int, rng: np.random.Generator) -> Iterator[str]:
        """Up to `windows` keys; each must be placed again before the next is drawn."""
        rounds: dict[int, Iterator[str]] = {}
        for _ in range(windows):
            pool = self._next_pool()
            if pool is None:
                return
            key = next(rounds[id(pool)], None) if id(pool) in rounds else None
            if key is None:
                rounds[id(pool)] = pool.choices(windows, rng)
                key = next(rounds[id(pool)], None)
            assert key is not None, "a pool that is next is not empty"
            yield key

    def deliver(self, held: Held, pairs: int) -> None:
        """Count the delivery of an episode's next tile, before it is taken off."""
        if self.rate is not None:
            self.rate.deliver(pairs if held.unused else 0)

    def _next_pool(self) -> Selector | None:
        """Where the next window comes from; None if nothing may be given."""
        if self.rate is None:
            return self.unused if len(self.unused) else None
        if len(self.unused) and (self.rate.due or not len(self.used)):
            return self.unused
        return self.used if len(self.used) and not self.rate.overdue else None

    def _count(self, held: Held, sign: int) -> None:
        if self.rate is not None and held.pool is self.unused:
            self.unused_pairs += sign * held.uses.size
