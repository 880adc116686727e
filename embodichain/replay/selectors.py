"""Which episode gives the next window. Names and meaning as in Reverb; an item here is an episode.

A selector knows keys and priorities, no episodes and no bound: whoever owns it removes a key once its episode has
nothing left to give. So `max_reuse` holds under each of them.

Source: `reverb/cc/selectors/` of github.com/google-deepmind/reverb (semantics).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np

MAX_PRIORITY, MAX_EXPONENT = 1e12, 10.0  # so that no power of one, nor a sum of those, is ever infinite


class Selector(ABC):
    """Keys to choose from. Not thread-safe: the store locks."""

    @abstractmethod
    def add(self, key: str, priority: float = 1.0) -> None:
        """Take a key in."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Let a key go. Raises `KeyError` for one that is not there."""

    @abstractmethod
    def keys(self) -> list[str]:
        """All keys; added to an empty selector in this order, they give the same choices."""

    @abstractmethod
    def round(self, count: int, rng: np.random.Generator) -> list[str]:
        """At least one and at most `count` choices, made at once; none only where there are no keys."""

    @abstractmethod
    def __contains__(self, key: str) -> bool: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def update(self, key: str, priority: float) -> None:
        """Change a key's priority; without effect where priorities do not matter."""

    def choices(self, count: int, rng: np.random.Generator) -> Iterator[str]:
        """Up to `count` choices, round by round, of keys that are there when each is taken."""
        while count > 0 and len(self):
            for key in self.round(count, rng):
                if key in self:
                    count -= 1
                    yield key


class Uniform(Selector):
    """Every episode as likely as any other: without replacement within a round, so that a request is well mixed."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._slot: dict[str, int] = {}

    def add(self, key: str, priority: float = 1.0) -> None:
        """Take a key in."""
        self._slot[key] = len(self._keys)
        self._keys.append(key)

    def remove(self, key: str) -> None:
        """Let a key go; the last one takes its slot."""
        self._vacate(key)

    def update(self, key: str, priority: float) -> None:
        """Priorities do not matter here."""

    def _vacate(self, key: str) -> int:
        slot, last = self._slot.pop(key), self._keys.pop()
        if last != key:
            self._keys[slot] = last
            self._slot[last] = slot
        return slot

    def keys(self) -> list[str]:
        """All keys by slot."""
        return list(self._keys)

    def round(self, count: int, rng: np.random.Generator) -> list[str]:
        """Distinct keys."""
        size = len(self._keys)
        return [self._keys[i] for i in rng.choice(size, min(count, size), replace=False)] if size else []

    def __contains__(self, key: str) -> bool:
        return key in self._slot

    def __len__(self) -> int:
        return len(self._keys)


class Prioritised(Uniform):
    """An episode is chosen with probability `priority ** exponent` over the sum of all, with replacement.

    Where all priorities are zero, every episode is as likely as any other.
    """

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self._exponent = exponent
        self._weights = np.zeros(64)

    def add(self, key: str, priority: float = 1.0) -> None:
        """Take a key in."""
        if len(self) == self._weights.size:
            self._weights = np.concatenate((self._weights, np.zeros_like(self._weights)))
        super().add(key)
        self.update(key, priority)

    def remove(self, key: str) -> None:
        """Let a key go; the last one takes its slot."""
        last = self._weights[len(self) - 1]
        self._weights[self._vacate(key)] = last

    def update(self, key: str, priority: float) -> None:
        """Change a key's priority."""
        # 0 ** 0 would be 1: an exponent of 0 makes all alike, as in Reverb, but for those that are off.
        self._weights[self._slot[key]] = priority**self._exponent if priority > 0 else 0.0

    def round(self, count: int, rng: np.random.Generator) -> list[str]:
        """Draws with replacement."""
        size = len(self)
        sums = np.cumsum(self._weights[:size])
        if not size or sums[-1] <= 0:
            return super().round(count, rng)
        drawn = np.searchsorted(sums, rng.random(count) * sums[-1], side="right")
        return [self._keys[i] for i in np.minimum(drawn, size - 1)]


class Fifo(Selector):
    """The episode that came first, until it has nothing left to give; then the next."""

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}

    def add(self, key: str, priority: float = 1.0) -> None:
        """Take a key in, behind all others."""
        self._keys[key] = None

    def remove(self, key: str) -> None:
        """Let a key go."""
        del self._keys[key]

    def update(self, key: str, priority: float) -> None:
        """Priorities do not matter here."""

    def keys(self) -> list[str]:
        """All keys, oldest first."""
        return list(self._keys)

    def round(self, count: int, rng: np.random.Generator) -> list[str]:
        """The oldest."""
        return [next(iter(self._keys))] if self._keys else []

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)


class Lifo(Fifo):
    """The episode that came last, until it has nothing left to give or a newer one comes."""

    def round(self, count: int, rng: np.random.Generator) -> list[str]:
        """The newest."""
        return [next(reversed(self._keys))] if self._keys else []


SELECTORS = ("uniform", "fifo", "lifo", "prioritised")
_PLAIN: dict[str, Callable[[], Selector]] = {"uniform": Uniform, "fifo": Fifo, "lifo": Lifo}


def make_selector(name: str, exponent: float = 1.0) -> Selector:
    """A selector by its name in `SELECTORS`; `exponent` is `Prioritised`'s. Raises `ValueError` for another name."""
    if name not in SELECTORS:
        raise ValueError(f"replay.selector={name!r}: expected one of {', '.join(SELECTORS)}")
    if name == "prioritised":
        return Prioritised(exponent)
    return _PLAIN[name]()
