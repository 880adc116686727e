"""Rate limiters with the semantics of DeepMind's Reverb, counting state-action pairs. Owns: who waits for whom.

With `inserts`, `deletes` and `samples` counted in pairs, `held = inserts - deletes` and

    error = inserts * samples_per_insert - samples

(1) sampling `n` pairs is allowed while `held >= min_size_to_sample` and `error - n >= min_diff`;
(2) inserting is allowed while `held < min_size_to_sample` or `error <= max_diff`.

Reverb counts items of weight one. Here an episode enters whole, so (2) is tested before it and may be overshot by
one episode; (1) is never overshot while more is expected (`expect`). Whenever (2) blocks, `error > max_diff`, so a
window fits as long as `max_diff - min_diff` covers it: one side can always move.

Each shard limits itself. If `|error_i| <= e_i` in every shard, the sum over shards obeys `sum(e_i)`: the bound over
all shards follows by addition, without any coordination.

Source: `reverb/rate_limiters.py` and `reverb/cc/rate_limiter.cc` of github.com/google-deepmind/reverb (semantics).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable


class RateLimiter:
    """The general limiter; use `MinSize` or `SampleToInsertRatio`. Thread-safe.

    `condition` guards the counters. Whoever owns the data that the counters describe should hold it across its own
    change and the count of it, so that both are seen together.

    Args:
        samples_per_insert: uses per inserted pair, > 0.
        min_size_to_sample: pairs held before sampling starts, >= 1.
        min_diff: least error after a sample.
        max_diff: largest error at which an insert may start.

    Attributes:
        waits: whether sampling waits for inserts. Not part of `state`; see `expect`.
    """

    def __init__(self, *, samples_per_insert: float, min_size_to_sample: int, min_diff: float, max_diff: float) -> None:
        if min_size_to_sample < 1:
            raise ValueError(
                f"min_size_to_sample={min_size_to_sample}: expected at least 1; nothing can be sampled from nothing"
            )
        if samples_per_insert <= 0:
            raise ValueError(f"samples_per_insert={samples_per_insert}: expected more than 0")
        self.condition = threading.Condition(threading.RLock())
        self.samples_per_insert = samples_per_insert
        self.min_size_to_sample = min_size_to_sample
        self.min_diff = min_diff
        self.max_diff = max_diff
        self.inserts = 0
        self.deletes = 0
        self.samples = 0
        self.waits = True

    @property
    def held(self) -> int:
        """Pairs inserted and not deleted."""
        return self.inserts - self.deletes

    @property
    def error(self) -> float:
        """`inserts * samples_per_insert - samples`, in pair uses."""
        return self.inserts * self.samples_per_insert - self.samples

    def can_insert(self) -> bool:
        """Whether an episode may enter now."""
        with self.condition:
            return self.held < self.min_size_to_sample or self.error <= self.max_diff

    def can_sample(self, pairs: int = 1) -> bool:
        """Whether `pairs` uses may be handed out now."""
        return pairs <= self.room()

    def room(self) -> float:
        """The most uses that may be handed out now; below zero if none may."""
        with self.condition:
            if not self.waits:
                return math.inf
            return self.error - self.min_diff if self.held >= self.min_size_to_sample else -math.inf

    def expect(self, inserts: bool) -> None:
        """Whether more may be inserted; while not, sampling waits for nothing, and (1) does not hold."""
        with self.condition:
            self.waits = inserts
            self.condition.notify_all()

    def insert(self, pairs: int) -> None:
        """Count an insert and wake whoever waits."""
        self._count("inserts", pairs)

    def delete(self, pairs: int) -> None:
        """Count a removal and wake whoever waits."""
        self._count("deletes", pairs)

    def sample(self, pairs: int) -> None:
        """Count uses and wake whoever waits."""
        self._count("samples", pairs)

    def await_that(self, predicate: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `predicate()`, re-evaluated under the lock after every count; False after `timeout_s` seconds."""
        with self.condition:
            return self.condition.wait_for(predicate, timeout=max(0.0, timeout_s))

    def state(self) -> dict[str, int]:
        """The counters, to be saved."""
        with self.condition:
            return {"inserts": self.inserts, "deletes": self.deletes, "samples": self.samples}

    def load(self, state: dict[str, int]) -> None:
        """Inverse of `state`."""
        with self.condition:
            self.inserts, self.deletes, self.samples = state["inserts"], state["deletes"], state["samples"]
            self.condition.notify_all()

    def _count(self, counter: str, pairs: int) -> None:
        if pairs < 0:
            raise ValueError(f"{counter}: {pairs} pairs, expected at least 0")
        with self.condition:
            setattr(self, counter, getattr(self, counter) + pairs)
            self.condition.notify_all()


class MinSize(RateLimiter):
    """Sampling waits for `min_size_to_sample` pairs; inserting never waits."""

    def __init__(self, min_size_to_sample: int) -> None:
        super().__init__(
            samples_per_insert=1.0, min_size_to_sample=min_size_to_sample, min_diff=-math.inf, max_diff=math.inf
        )


class SampleToInsertRatio(RateLimiter):
    """Keeps the average number of uses per inserted pair at `samples_per_insert`, within `error_buffer` uses.

    The error is allowed in `samples_per_insert * min_size_to_sample ± error_buffer`.

    Args:
        samples_per_insert: uses per inserted pair, > 0.
        min_size_to_sample: pairs held before sampling starts, >= 1.
        error_buffer: pair uses, > 0; at least `max(1, samples_per_insert)` and half a window.
        window_pairs: the most pairs asked for at once.

    Raises:
        ValueError: for a buffer that will result in a deadlock.
    """

    def __init__(
        self, *, samples_per_insert: float, min_size_to_sample: int, error_buffer: float, window_pairs: int = 1
    ) -> None:
        least = max(1.0, samples_per_insert, window_pairs / 2)
        if error_buffer < least:
            raise ValueError(
                f"error_buffer={error_buffer}: expected at least {least:g} for samples_per_insert="
                f"{samples_per_insert} and windows of {window_pairs} pairs; a smaller one will result in a deadlock as "
                "soon as the error is too large to insert and too small to sample"
            )
        offset = samples_per_insert * min_size_to_sample
        super().__init__(
            samples_per_insert=samples_per_insert,
            min_size_to_sample=min_size_to_sample,
            min_diff=offset - error_buffer,
            max_diff=offset + error_buffer,
        )
