"""Which recipe comes next: a seeded, resumable stream that can only draw from the training side of the world.

Seeds, scenes and tasks alike: it has no way to name a held-out one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodichain.contracts import Recipe, seed_range
from tasks.domain import parse_domain
from tasks.registry import task_info

_RUN_STRIDE = 10_000_000  # recipes a run may draw before it would meet the next run seed's


@dataclass(kw_only=True)
class RecipeStream:
    """Recipe i of a run is a pure function of (run seed, i), so a resumed run never repeats one.

    Attributes:
        weights: task name -> share of recipes, positive.
        domain: of every recipe; without a held-out side.
        run_seed: 0 <= run_seed < 190.
        sim_hash: stamped on every recipe.
        drawn: recipes handed out so far; the whole state of the stream.
    """

    weights: dict[str, float]
    domain: str
    run_seed: int
    sim_hash: str
    drawn: int = 0

    def __post_init__(self) -> None:
        if parse_domain(self.domain).heldout:
            raise ValueError(f"domain={self.domain}: training never draws from a held-out side; expected none ('@...')")
        for task in self.weights:
            if task_info(task).split != "train":
                raise ValueError(f"tasks.{task}: held out, training never draws it; expected a task of split 'train'")
        if not self.weights or any(weight <= 0 for weight in self.weights.values()):
            raise ValueError(f"tasks={self.weights}: expected at least one task, with positive weights")
        runs = (seed_range("train").stop - seed_range("train").start) // _RUN_STRIDE
        if not 0 <= self.run_seed < runs:
            raise ValueError(f"seed={self.run_seed}: expected 0 <= seed < {runs}")

    def at(self, index: int) -> Recipe:
        """Recipe number `index`. Tasks follow their weights by a seeded draw, independent per index."""
        names = sorted(self.weights)
        share = np.array([self.weights[name] for name in names], dtype=np.float64)
        draw = np.random.default_rng([self.run_seed, index, 0x7A5C]).random()
        task = names[int(np.searchsorted(np.cumsum(share / share.sum()), draw, side="right").clip(0, len(names) - 1))]
        seed = seed_range("train").at(self.run_seed * _RUN_STRIDE + index)
        return Recipe(task=task, seed=seed, domain=self.domain, sim_hash=self.sim_hash)

    def next(self) -> Recipe:
        """The next recipe; advances the stream."""
        recipe = self.at(self.drawn)
        self.drawn += 1
        return recipe
