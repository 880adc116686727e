"""Which recipe comes next: a seeded, resumable stream that can only draw from the training side of the world.

Seeds, scenes and tasks alike: it has no way to name a held-out one. Each task counts its own seeds up one by one,
since what is spread over a task's scenes (the stage `reach`) is even over consecutive seeds, not over some of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from embodichain.actors.parents import nearest_parents
from embodichain.actors.training import check_training
from embodichain.contracts import Recipe, seed_range
from tasks.domain import parse_domain
from tasks.mimic import imitable
from tasks.registry import task_info

_RUN_STRIDE = 10_000_000  # recipes a run may draw before it would meet the next run seed's
_ROUND = 1000  # recipes after which every task has had its share exactly


@dataclass(kw_only=True)
class RecipeStream:
    """Recipe i of a run is a pure function of (run seed, i), so a resumed run never repeats one.

    Attributes:
        weights: task name -> share of recipes, positive.
        domain: of every recipe; without a held-out side.
        run_seed: 0 <= run_seed < 190.
        sim_hash: stamped on every recipe.
        sources: `expert` and `mimic` -> share of recipes; `mimic` needs tasks that can be imitated.
        mimic_parents: demonstrations of each task that `mimic` recipes carry over to new scenes.
        drawn: recipes handed out so far; the whole state of the stream.
    """

    weights: dict[str, float]
    domain: str
    run_seed: int
    sim_hash: str
    sources: dict[str, float] = field(default_factory=lambda: {"expert": 1.0})
    mimic_parents: int = 20
    drawn: int = 0

    def __post_init__(self) -> None:
        if parse_domain(self.domain).heldout:
            raise ValueError(f"domain={self.domain}: training never draws from a held-out side; expected none ('@...')")
        for task in self.weights:
            if task_info(task).split != "train":
                raise ValueError(f"tasks.{task}: held out, training never draws it; expected a task of split 'train'")
        if not self.weights or any(weight <= 0 for weight in self.weights.values()):
            raise ValueError(f"tasks={self.weights}: expected at least one task, with positive weights")
        missing = set(range(len(self.weights))) - set(self._shares().tolist())
        if missing:
            task = sorted(self.weights)[min(missing)]
            raise ValueError(f"tasks.{task}={self.weights[task]}: expected a share of at least one in {_ROUND}")
        self._check_sources()
        runs = (seed_range("train").stop - seed_range("train").start) // _RUN_STRIDE
        if not 0 <= self.run_seed < runs:
            raise ValueError(f"seed={self.run_seed}: expected 0 <= seed < {runs}")

    def _check_sources(self) -> None:
        shares = self.sources
        if set(shares) - {"expert", "mimic"} or min(shares.values(), default=0) < 0 or sum(shares.values()) <= 0:
            raise ValueError(f"sources={shares}: expected shares of expert and mimic, none negative, not all zero")
        if self.mimic_parents < 1:
            raise ValueError(f"mimic_parents={self.mimic_parents}: expected at least 1")
        for task in self.weights:
            if shares.get("mimic", 0) > 0 and not imitable(task_info(task)):
                raise ValueError(f"sources.mimic={shares['mimic']}: {task} grasps nothing to imitate; expected 0")

    def _source(self, index: int, task: str, seed: int) -> str:
        """The expert itself, or the demonstration nearest to the scene; theirs are the last seeds of a run."""
        share = self.sources.get("mimic", 0.0) / sum(self.sources.values())
        if np.random.default_rng([self.run_seed, index, 0x50C]).random() >= share:
            return "expert"
        last = (self.run_seed + 1) * _RUN_STRIDE - 1
        parents = [seed_range("train").at(last - i) for i in range(self.mimic_parents)]
        return f"mimic:{nearest_parents(task, seed, self.domain, parents)[0]}"

    def at(self, index: int) -> Recipe:
        """Recipe number `index`. Rounds hold every task by its weight, each in a seeded order of its own."""
        rounds, place = divmod(index, _ROUND)
        shares = self._shares()
        turns = np.random.default_rng([self.run_seed, rounds, 0x7A5C]).permutation(shares)
        task = int(turns[place])
        earlier = rounds * np.count_nonzero(shares == task) + np.count_nonzero(turns[:place] == task)
        first = np.count_nonzero(shares < task) * (_RUN_STRIDE // _ROUND)  # of the run's seeds, the task's own
        seed = seed_range("train").at(self.run_seed * _RUN_STRIDE + int(first + earlier))
        name = sorted(self.weights)[task]
        source = self._source(index, name, seed)
        recipe = Recipe(task=name, seed=seed, domain=self.domain, source=source, sim_hash=self.sim_hash)
        check_training(recipe)
        return recipe

    def _shares(self) -> np.ndarray:
        """i64[_ROUND]: numbers of tasks (by name), as often as each stands in a round, in order."""
        share = np.cumsum([self.weights[name] for name in sorted(self.weights)])
        middles = (np.arange(_ROUND) + 0.5) / _ROUND
        return np.searchsorted(share / share[-1], middles, side="right")

    def next(self) -> Recipe:
        """The next recipe; advances the stream."""
        recipe = self.at(self.drawn)
        self.drawn += 1
        return recipe
