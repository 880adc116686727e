"""A learner that believes nothing: counts the uses of every pair it is given, and keeps what stood there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.reuse import PairCounts
from embodichain.contracts import ACTION_DIM, Batch, Episode, WindowSpec

LONGEST = 1000  # control steps of an episode, at most


class Witness:
    """Sees every delivered window, from its arrays alone.

    Args:
        window: how windows are cut.
        bound: uses of a pair, at most.
    """

    def __init__(self, window: WindowSpec, bound: int) -> None:
        self._window, self._bound = window, bound
        self.counts = PairCounts(window=window, longest=LONGEST)
        self._actions: dict[str, np.ndarray] = {}  # recipe id -> f32[LONGEST, A], NaN where nothing was delivered

    @property
    def recipes(self) -> list[str]:
        """Ids of every recipe of which a window was delivered, in the order of their first one."""
        return list(self._actions)

    def add(self, batch: Batch) -> None:
        """Take in one batch."""
        self.counts.add(batch)
        b, j, n = np.nonzero(batch.action_mask)
        steps = batch.start[b] + (j - self._window.burn_in) * self._window.tau + n
        for index, recipe_id in enumerate(batch.recipe_id):
            if recipe_id not in self._actions:
                self._actions[recipe_id] = np.full((LONGEST, ACTION_DIM), np.nan, dtype=np.float32)
            mine = b == index
            self._actions[recipe_id][steps[mine]] = batch.action[index, j[mine], n[mine]]

    def over_bound(self) -> list[str]:
        """One line for every recipe with a pair that was used more often than the bound allows."""
        worst = {recipe_id: int(uses.max()) for recipe_id, uses in self.counts.uses.items()}
        return [
            f"a pair of {recipe_id} was used {uses} times, the bound is {self._bound}"
            for recipe_id, uses in worst.items()
            if uses > self._bound
        ]

    def audit(self, recipe_ids: list[str], make: Callable[[str], Episode]) -> list[str]:
        """One line for every recipe whose windows do not come from the whole episode that `make` makes again."""
        found = []
        for recipe_id in recipe_ids:
            episode, seen = make(recipe_id), self._actions[recipe_id]
            delivered = np.flatnonzero(np.isfinite(seen[:, 0]))
            if delivered.size and delivered[-1] >= episode.pairs:
                found.append(f"{recipe_id}: step {delivered[-1]} was delivered of an episode of {episode.pairs}")
            elif not np.array_equal(seen[delivered], episode.action[delivered]):
                found.append(f"{recipe_id}: delivered actions are not those of its episode")
        return found
