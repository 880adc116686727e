"""Closed-loop error recovery: how often errors happen, are seen, and are put right, task by task.

Every recipe is made with and without the stage `recovery`. Scenes are the same on both sides; so are the experts, up to
the first error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from embodichain.contracts import Recipe, seed_range
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions, make_episode
from tasks.registry import slots
from tasks.session import TaskSession, sim_hash

DOMAIN = "default"


def run(tasks: list[str], seeds: int, first: int) -> Iterator[dict[str, object]]:
    """One row per task, over `seeds` recipes of the `test` range from index `first` on."""
    session = TaskSession(render=None)
    for task in tasks:
        yield _row(task, session, range(first, first + seeds))
    session.close()


def _row(task: str, session: TaskSession, indices: range) -> dict[str, object]:
    encoder, count, rejected = StateEncoder(**slots([task])), Counter[str](), Counter[str]()
    for index in indices:
        plain, loop = (
            Recipe(task=task, seed=seed_range("test").at(index), domain=domain, sim_hash=sim_hash())
            for domain in (DOMAIN, f"{DOMAIN}+recovery")
        )
        succeeded = make_episode(plain, session, encoder, RolloutOptions())[1].accepted
        episode, verdict, _ = make_episode(loop, session, encoder, RolloutOptions())
        count["plain"] += succeeded
        rejected.update(verdict.reasons)
        if episode is None:
            continue
        drawn: Any = episode.draws["recovery"]
        kind, seen = (drawn["injected"] or {}).get("kind"), bool(drawn["detected"])
        count["accepted"] += verdict.accepted
        count["pairs"] += episode.pairs
        count["unlabelled"] += int((~episode.label_valid).sum()) if episode.label_valid is not None else 0
        if kind is None:
            count["natural"] += not succeeded
            count["rescued"] += verdict.accepted and not succeeded
            continue
        count["injected"] += 1
        count[kind] += 1
        count["seen"] += seen
        count["recovered"] += seen and verdict.accepted
        count["harmless"] += verdict.accepted and not seen
    rejected.pop("no_success", None) if rejected["not_recoverable"] == rejected["no_success"] else None
    return {
        "task": task,
        "n": len(indices),
        "accepted_without": count["plain"],
        "accepted": count["accepted"],
        "injected": count["injected"],
        **{kind: count[kind] for kind in ("slip", "misgrasp", "push")},
        "detected": count["seen"],
        "recovered": count["recovered"],
        "harmless": count["harmless"],
        "natural_failures": count["natural"],
        "rescued": count["rescued"],
        "unlabelled_share": count["unlabelled"] / max(count["pairs"], 1),
        "rejected": dict(rejected),
    }
