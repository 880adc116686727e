"""Two token buckets that set how fast fresh data enters the learner, per window and per second. Owns: their arithmetic.

**Fresh pairs per learner step.** A learner step takes a fixed number of windows from all shards together, so a target
per step is a target per delivered window, and each shard can hold it alone: every window that it delivers earns
`per_window` pairs of credit, every first use spends one. While the credit is not negative, windows come from episodes
in their first pass; otherwise from those that were used before. Over any n windows, fresh pairs are `n * per_window` to
within the largest debt and the largest credit.

- *Nothing used before is left* (at the start, or where the bound took it all): an unused window is given all the same,
  since a learner that waited could never earn the credit. The debt is paid back by reused windows as soon as there are
  any. It is kept up to four times what makes producers wait, more than there is at a start, so that a time in which
  deaths took the reused windows away does not keep fresh ones out for ever.
- *Nothing unused is left*: reused windows are given until the credit is `most`, then none: the learner takes windows
  from the other shards, and where no shard has any, it waits for the producers. So the target is held whatever they
  do; what suffers is steps per second. It also evens out shards: a learner that asks one of them more often, or a hash
  that brings it less, would otherwise leave it without unused pairs while producers wait at another.
- *The target is more than the windows hold* (those at an episode's ends are short): every window is an unused one.

Producers wait while the episodes in their first pass hold `buffer_pairs`, so nothing has to leave unused.

**Episodes per second.** Tokens come with the clock, one for an episode; the bucket keeps those of ten seconds, at least
ten, so that a shard which the hash gave nothing for a moment catches up.
"""

from __future__ import annotations


class FreshRate:
    """Credit for first uses. Not thread-safe: the store locks.

    Args:
        per_window: pairs of credit per delivered window, > 0.
        buffer_pairs: pairs of episodes in their first pass above which producers wait.
        most: credit from which on only unused windows are given.

    Attributes:
        credit: pairs that may be used for the first time; below zero, a debt.
    """

    def __init__(self, per_window: float, buffer_pairs: int, most: float) -> None:
        self.per_window = per_window
        self.buffer_pairs = buffer_pairs
        self.most = most
        self.credit = 0.0

    @property
    def due(self) -> bool:
        """Whether the next window should be an unused one."""
        return self.credit >= 0.0

    @property
    def overdue(self) -> bool:
        """Whether the next window must be an unused one."""
        return self.credit >= self.most

    def deliver(self, fresh: int) -> None:
        """Count a delivered window with so many first uses."""
        self.credit = max(-4.0 * self.buffer_pairs, self.credit + self.per_window - fresh)


class InsertRate:
    """Tokens for episodes. Not thread-safe: the store locks.

    Args:
        per_second: episodes per second, > 0.
        now: the clock's present time, seconds.
    """

    def __init__(self, per_second: float, now: float) -> None:
        self.per_second = per_second
        self._tokens = 1.0
        self._since = now

    def wait_s(self, now: float) -> float:
        """Seconds from `now` until an episode may enter; 0 if it may at once."""
        most = max(10.0, 10.0 * self.per_second)
        self._tokens = min(most, self._tokens + max(0.0, now - self._since) * self.per_second)
        self._since = now
        missing = 1.0 - self._tokens
        return missing / self.per_second if missing > 1e-9 else 0.0

    def take(self) -> None:
        """Count an episode that enters."""
        self._tokens -= 1.0
