"""Demonstrations carried over to new scenes: how many physics accepts, task by task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from embodichain.actors.parents import nearest_parents
from embodichain.contracts import Recipe, seed_range, wilson_interval
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions, make_episode
from tasks.registry import slots
from tasks.session import TaskSession, sim_hash


def run(tasks: list[str], seeds: int, parents: int) -> Iterator[dict[str, object]]:
    """One row per task: `seeds` scenes of the range `test`, each from the nearest of `parents` others."""
    session = TaskSession(render=None)
    for task in tasks:
        yield _row(task, session, seeds, parents)
    session.close()


def _row(task: str, session: TaskSession, seeds: int, parents: int) -> dict[str, object]:
    encoder, rejected, accepted, pairs = StateEncoder(**slots([task])), Counter[str](), 0, []
    sources = [seed_range("test").at(index) for index in range(parents)]
    for index in range(seeds):
        seed = seed_range("test").at(parents + index)
        source = f"mimic:{nearest_parents(task, seed, 'default', sources)[0]}"
        recipe = Recipe(task=task, seed=seed, source=source, sim_hash=sim_hash())
        episode, verdict, _ = make_episode(recipe, session, encoder, RolloutOptions())
        accepted += verdict.accepted
        rejected.update(verdict.reasons)
        if episode is not None and verdict.accepted:
            pairs.append(episode.pairs)
    low, high = wilson_interval(accepted, seeds)
    return {
        "task": task,
        "n": seeds,
        "parents": parents,
        "accepted": accepted,
        "rate": accepted / seeds,
        "low": low,
        "high": high,
        "mean_pairs": sum(pairs) / max(len(pairs), 1),
        "rejected": dict(rejected),
    }
