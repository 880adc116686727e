"""The replay's settings. Owns: their validation and how shards share them. Hands on: one shard's share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from embodichain.contracts import WindowSpec

MODES = ("stream", "static")


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """How much is kept, how often it may be used, and who waits for whom.

    Sizes are totals over all shards; recipes are routed by hash, so each shard applies its `share()` alone.
    A bound that holds in every shard holds for their sum.

    Attributes:
        shards: number of shards, >= 1.
        capacity_pairs: state-action pairs kept; the oldest episode makes room for a new one.
        max_reuse: passes over an episode, so the most often any pair is ever used (the paper's replay bound).
        mode: `stream` (bounded, exhausted episodes leave) or `static` (a fixed set: unbounded, still counted).
        min_size_pairs: pairs held before anything is sampled, >= 1. Below it the learner waits, so that batches
            stay mixed.
        samples_per_insert: pair uses per inserted pair that the limiter keeps to; None: only `min_size_pairs` and
            `max_reuse` gate the learner, and nothing gates the producers.
        error_buffer: how far, in pair uses, the ratio may be off before a side waits; None: a tenth of
            `samples_per_insert * min_size_pairs`, or the smallest value that cannot deadlock where that is more.
    """

    shards: int = 2
    capacity_pairs: int = 1_000_000
    max_reuse: int = 50
    mode: str = "stream"
    min_size_pairs: int = 2_000
    samples_per_insert: float | None = None
    error_buffer: float | None = None

    def __post_init__(self) -> None:
        for name in ("shards", "capacity_pairs", "max_reuse", "min_size_pairs"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"replay.{name}={value}: expected an integer of at least 1")
        if self.mode not in MODES:
            raise ValueError(f"replay.mode={self.mode!r}: expected one of {', '.join(MODES)}")
        if self.capacity_pairs // self.shards <= math.ceil(self.min_size_pairs / self.shards):
            raise ValueError(
                f"replay.capacity_pairs={self.capacity_pairs}: expected more than replay.min_size_pairs="
                f"{self.min_size_pairs} in each of {self.shards} shards; nothing would ever be sampled"
            )
        self._check_ratio()

    def _check_ratio(self) -> None:
        ratio = self.samples_per_insert
        if ratio is None:
            if self.error_buffer is not None:
                raise ValueError(
                    f"replay.error_buffer={self.error_buffer}: expected none without replay.samples_per_insert"
                )
            return
        if self.mode == "static":
            raise ValueError(f"replay.samples_per_insert={ratio}: expected none in replay.mode=static")
        if not 0 < ratio <= self.max_reuse:
            raise ValueError(
                f"replay.samples_per_insert={ratio}: expected more than 0 and at most replay.max_reuse="
                f"{self.max_reuse}; a larger ratio can never be met, since no pair is used more often than that"
            )

    def error_buffer_uses(self, window: WindowSpec) -> float:
        """The error buffer in pair uses, over all shards. Raises `ValueError` if it could deadlock."""
        if self.samples_per_insert is None:
            return 0.0
        least = float(self.shards * max(window.pairs, self.samples_per_insert, 1.0))
        if self.error_buffer is None:
            return max(least, 0.1 * self.samples_per_insert * self.min_size_pairs)
        if self.error_buffer < least:
            raise ValueError(
                f"replay.error_buffer={self.error_buffer}: expected at least {least:g} (shards x the larger of a "
                "window's pairs and samples_per_insert); a smaller buffer will result in a deadlock as soon as "
                "neither an insert nor a whole window fits into it"
            )
        return self.error_buffer

    def share(self, window: WindowSpec) -> ReplayConfig:
        """What one shard applies by itself: `shards=1` and a `1/shards` part of every total."""
        buffer = None if self.samples_per_insert is None else self.error_buffer_uses(window) / self.shards
        return replace(
            self,
            shards=1,
            capacity_pairs=self.capacity_pairs // self.shards,
            min_size_pairs=math.ceil(self.min_size_pairs / self.shards),
            error_buffer=buffer,
        )
