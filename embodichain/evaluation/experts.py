"""How often an expert succeeds, why it does not, and what an episode of it costs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from embodichain.contracts import Recipe, seed_range, wilson_interval
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions, make_episode
from tasks.registry import slots
from tasks.session import TaskSession


def expert_score(task: str, indices: Iterable[int], session: TaskSession, domain: str = "default") -> dict[str, Any]:
    """Let the expert of `task` try seeds of the `test` range, disturbances included; a JSON-able row.

    Returns:
        `name`, `domain`, `n`, `success_rate` with its Wilson 95 % interval `low` and `high`, `rejected` (counts by
        reason), `mean_steps` (control steps of an episode), `episodes_per_core_minute` (accepted ones per minute of
        processor time, whatever else the machine does).

    Raises:
        ValueError: there are no indices.
    """
    encoder, rejected = StateEncoder(**slots([task])), Counter[str]()
    accepted, lengths, tried, started = 0, list[int](), 0, time.process_time()
    for index in indices:
        recipe = Recipe(task=task, seed=seed_range("test").at(index), domain=domain)
        episode, verdict, _ = make_episode(recipe, session, encoder, RolloutOptions())
        tried += 1
        accepted += verdict.accepted
        rejected.update(verdict.reasons)
        if episode is not None:
            lengths.append(episode.pairs)
    seconds = time.process_time() - started
    low, high = wilson_interval(accepted, tried)
    return {
        "name": task,
        "domain": domain,
        "n": tried,
        "success_rate": accepted / tried,
        "low": low,
        "high": high,
        "rejected": dict(rejected),
        "mean_steps": sum(lengths) / max(1, len(lengths)),
        "episodes_per_core_minute": 60 * accepted / seconds,
    }
