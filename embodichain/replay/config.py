"""The replay's settings. Owns: their validation and how shards share them. Hands on: one shard's share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from embodichain.contracts import WindowSpec
from embodichain.replay.selectors import MAX_EXPONENT, SELECTORS

MODES = ("stream", "static")
TRANSPORTS = ("auto", "shared", "tcp", "ray")


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """How much is kept, how often it may be used, and who waits for whom.

    Sizes are totals over all shards; recipes are routed by hash, so each shard applies its `share()` alone.
    A bound that holds in every shard holds for their sum.

    Attributes:
        shards: number of shards, >= 1.
        capacity_pairs: available state-action pairs kept; the oldest episode makes room for a new one. In mode `static`
            it is the size of the set.
        capacity_bytes: bytes of arrays kept; None: no limit of its own.
        capacity_episodes: episodes kept; None: no limit of its own.
        max_reuse: passes over an episode, so the most often any pair is ever used (the paper's replay bound).
        mode: `stream` (bounded, exhausted episodes leave) or `static` (a fixed set, complete once an episode did not
            fit any more: unbounded, still counted).
        selector: which episode gives the next window: `uniform`, `fifo`, `lifo` or `prioritised`.
        priority_exponent: of `prioritised`: 0 makes all priorities alike, 1 takes them as they are.
        min_size_pairs: pairs held before anything is sampled, >= 1. Below it the learner waits, so that batches
            stay mixed. Neither it nor `samples_per_insert` holds back what is there once no more can come.
        samples_per_insert: pair uses per inserted pair that the limiter keeps to; None: only `min_size_pairs` and
            `max_reuse` gate the learner, and nothing gates the producers.
        error_buffer: how far, in pair uses, the ratio may be off before a side waits; None: a tenth of
            `samples_per_insert * min_size_pairs`, or the smallest value that cannot deadlock where that is more.
        fresh_per_step: first uses per learner step over all shards, held by choosing between unused and used
            episodes (`replay.rates`); producers wait while enough unused pairs do. None: not controlled.
        step_windows: windows that one learner step takes over all learner workers; a run fills in
            `learner.batch_windows`.
        episodes_per_second: episodes that enter per second at most, over all shards; None: as they come.
        transport: how batches reach a learner: `shared` memory, which needs every shard on the learner's node, `tcp`,
            `ray`, or `auto`: shared memory for the shards on the same node, TCP for the others, and Ray for those that
            TCP does not reach.
    """

    shards: int = 2
    capacity_pairs: int = 1_000_000
    capacity_bytes: int | None = None
    capacity_episodes: int | None = None
    max_reuse: int = 50
    mode: str = "stream"
    selector: str = "uniform"
    priority_exponent: float = 1.0
    min_size_pairs: int = 2_000
    samples_per_insert: float | None = None
    error_buffer: float | None = None
    fresh_per_step: float | None = None
    step_windows: float | None = None
    episodes_per_second: float | None = None
    transport: str = "auto"

    def __post_init__(self) -> None:
        limits = ("capacity_bytes", "capacity_episodes")
        for name in ("shards", "capacity_pairs", "max_reuse", "min_size_pairs", *limits):
            value = getattr(self, name)
            if value is None and name in limits:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"replay.{name}={value}: expected an integer of at least 1")
        if self.selector not in SELECTORS:
            raise ValueError(f"replay.selector={self.selector!r}: expected one of {', '.join(SELECTORS)}")
        if not 0 <= self.priority_exponent <= MAX_EXPONENT:
            raise ValueError(f"replay.priority_exponent={self.priority_exponent}: expected 0 to {MAX_EXPONENT:g}")
        if self.capacity_episodes is not None and self.capacity_episodes < self.shards:
            raise ValueError(
                f"replay.capacity_episodes={self.capacity_episodes}: expected at least one in each of {self.shards} "
                "shards"
            )
        if self.mode not in MODES:
            raise ValueError(f"replay.mode={self.mode!r}: expected one of {', '.join(MODES)}")
        if self.transport not in TRANSPORTS:
            raise ValueError(f"replay.transport={self.transport!r}: expected one of {', '.join(TRANSPORTS)}")
        if self.capacity_pairs // self.shards <= math.ceil(self.min_size_pairs / self.shards):
            raise ValueError(
                f"replay.capacity_pairs={self.capacity_pairs}: expected more than replay.min_size_pairs="
                f"{self.min_size_pairs} in each of {self.shards} shards; nothing would ever be sampled"
            )
        self._check_ratio()
        self._check_rates()

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

    def _check_rates(self) -> None:
        for name in ("fresh_per_step", "step_windows", "episodes_per_second"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"replay.{name}={value}: expected more than 0, or null")
        if self.fresh_per_step is None:
            return
        for name, clash in (
            ("mode", self.mode == "static"),
            ("samples_per_insert", self.samples_per_insert is not None),
            ("episodes_per_second", self.episodes_per_second is not None),
        ):
            if clash:
                raise ValueError(
                    f"replay.fresh_per_step={self.fresh_per_step}: expected none with replay.{name}="
                    f"{getattr(self, name)}; only one of them can say how fast fresh pairs come"
                )

    @property
    def bound(self) -> int | None:
        """The most uses of any pair; None in mode `static`, where nothing bounds them."""
        return self.max_reuse if self.mode == "stream" else None

    def exceeded(self, episodes: int, pairs: int, nbytes: int) -> str:
        """The key of a capacity that so much would exceed; empty if all of it fits."""
        held = {"capacity_pairs": pairs, "capacity_bytes": nbytes, "capacity_episodes": episodes}
        for key, amount in held.items():
            limit = getattr(self, key)
            if limit is not None and amount > limit:
                return key
        return ""

    def fresh_per_window(self, window: WindowSpec) -> float | None:
        """First uses per delivered window that meet the target, in every shard alike; None without a target.

        Raises:
            ValueError: for a target that the bound or the size of a learner step makes impossible.
        """
        if self.fresh_per_step is None:
            return None
        if self.step_windows is None:
            raise ValueError(f"replay.fresh_per_step={self.fresh_per_step}: expected replay.step_windows with it")
        most = self.step_windows * window.pairs
        slack = 1e-9 * most
        if not most / self.max_reuse - slack <= self.fresh_per_step <= most + slack:
            raise ValueError(
                f"replay.fresh_per_step={self.fresh_per_step}: expected {most / self.max_reuse:g} to {most:g}; a "
                f"learner step uses up to {self.step_windows:g} windows x {window.pairs} = {most:g} pairs, each "
                f"at most replay.max_reuse={self.max_reuse} times"
            )
        return self.fresh_per_step / self.step_windows

    def fresh_buffer_pairs(self, window: WindowSpec) -> int:
        """Of one shard's share: pairs of episodes in their first pass above which producers wait.

        As much as is held before anything is sampled, at least what four windows and what four learner steps want;
        half the capacity at the most, so that the rest is there for what was used before.
        """
        wanted = max(self.min_size_pairs, 4 * window.pairs, math.ceil(4 * (self.fresh_per_step or 0.0)))
        return min(self.capacity_pairs // 2, wanted)

    def fresh_slack_pairs(self, window: WindowSpec) -> float:
        """Of one shard's share: how far, in pairs, fresh uses may be behind the target before reused windows stop."""
        return max(2.0 * window.pairs, 4 * (self.fresh_per_step or 0.0))

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
        """What one shard applies by itself: `shards=1` and a `1/shards` part of every total.

        Raises:
            ValueError: for settings that are impossible with these windows.
        """
        self.fresh_per_window(window)
        buffer = None if self.samples_per_insert is None else self.error_buffer_uses(window) / self.shards
        return replace(
            self,
            shards=1,
            capacity_pairs=self.capacity_pairs // self.shards,
            min_size_pairs=math.ceil(self.min_size_pairs / self.shards),
            error_buffer=buffer,
            capacity_bytes=self.capacity_bytes and max(1, self.capacity_bytes // self.shards),
            capacity_episodes=self.capacity_episodes and self.capacity_episodes // self.shards,
            fresh_per_step=self.fresh_per_step and self.fresh_per_step / self.shards,
            step_windows=self.step_windows and self.step_windows / self.shards,
            episodes_per_second=self.episodes_per_second and self.episodes_per_second / self.shards,
        )
