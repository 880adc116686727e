"""From an archive into a shard's store, in this process: what `embodichain fit` learns from.

Owns: the order of episodes, which of them are held out, how full the store is kept, and whether it may wait for more.
Everything follows from the archive and the seed, so a resumed fit is fed what it would have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from embodichain.archive import Archive, DamagedEntry, Entry
from embodichain.contracts import Batch, Episode
from embodichain.replay.gather import concatenate
from embodichain.replay.store import AppendStatus, ShardStore

HELDOUT_EPISODES = 64  # at the most


def split(entries: Sequence[Entry], heldout: float, seed: int) -> tuple[list[str], list[str]]:
    """Recipe ids to learn from, in a seeded order, and those held out.

    Args:
        entries: of an archive.
        heldout: share to hold out, by recipe id, so that it does not depend on what else is archived; at most
            `HELDOUT_EPISODES`.
        seed: of the order.
    """
    ids = sorted(entry.id for entry in entries)
    away = [each for each in ids if int(each, 16) % 10_000 < heldout * 10_000][:HELDOUT_EPISODES]
    rest = sorted(set(ids) - set(away))
    return [rest[i] for i in np.random.default_rng([seed, 0xF17]).permutation(len(rest))], away


@dataclass(kw_only=True)
class Feed:
    """Hands an archive's episodes to a store while it has room for them.

    Attributes:
        archive: where episodes come from. `order`: recipe ids. `heldout`: others that have to be there, to be read
            alone.
        position: how many of them have been dealt with. `damaged`: how many of those could not be read; `left_out`: how
            many a static set had no room for.
    """

    archive: Archive
    order: list[str]
    heldout: list[str] = field(default_factory=list)
    position: int = 0
    damaged: int = 0
    left_out: int = 0
    _entries: dict[str, Entry] = field(init=False)
    _waiting: Episode | None = None

    def __post_init__(self) -> None:
        self._entries = {entry.id: entry for entry in self.archive.entries()}
        missing = [each for each in (*self.order, *self.heldout) if each not in self._entries]
        if missing:
            raise ValueError(f"archive {self.archive.root}: {len(missing)} episodes are gone, first {missing[0]}")

    @property
    def learned_from(self) -> int:
        """How many episodes the store was given."""
        return self.position - self.damaged - self.left_out

    @property
    def exhausted(self) -> bool:
        """Whether every episode has been handed over."""
        return self.position >= len(self.order)

    def read(self, recipe_id: str) -> Episode:
        """The episode of a recipe. Raises `DamagedEntry`."""
        return self.archive.read(self._entries[recipe_id])

    def fill(self, store: ShardStore) -> bool:
        """Append what there is room for; a damaged episode is left out and counted.

        Returns:
            Whether more can come once some of what is there has been sampled.

        Raises:
            ValueError: naming the field, if episodes do not go together.
        """
        while not self.exhausted:
            try:
                episode = self._waiting or self.read(self.order[self.position])
            except DamagedEntry:
                self.damaged += 1
                self.position += 1
                continue
            self._waiting = episode
            nbytes = sum(held.source.nbytes() for held in store.held.values()) if store.config.capacity_bytes else 0
            held, pairs = len(store.held), store.limiter.held
            full = store.config.exceeded(held + 1, pairs + episode.pairs, nbytes + episode.nbytes())
            if held and full and store.config.mode == "stream":
                return False  # none is pushed out before it is used up
            status = store.append(episode)
            if status is AppendStatus.RETRY:
                return True
            self._waiting = None
            if status is AppendStatus.FULL:
                self.left_out = len(self.order) - self.position
                self.position = len(self.order)
            else:
                self.position += 1
        return False


def next_batch(store: ShardStore, feed: Feed, windows: int) -> tuple[Batch, int] | None:
    """`windows` windows and how many pairs are used in them for the first time.

    Fewer windows where the archive and all its passes end; None after that.
    """
    parts, fresh, missing = [], 0, windows
    while missing:
        # Where none can come before something is used up, what is there is bound by max_reuse alone.
        store.limiter.expect(feed.fill(store))
        reply = store.sample(missing)
        if reply is None:
            break
        parts.append(reply.batch)
        fresh += int(reply.fresh.sum())
        missing -= reply.batch.size
    return (concatenate(parts), fresh) if parts else None
