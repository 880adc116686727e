"""Exact replay: random recipes of all tasks, made again by other processes, more of them, in another order."""

from __future__ import annotations

import hashlib
import multiprocessing

import numpy as np

from embodichain.contracts import Recipe, seed_range
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions, make_episode
from tasks.registry import slots
from tasks.session import TaskSession, sim_hash

_FIELDS = ("action", "proprio", "sim_state", "segment_id", "tokens", "label_valid")
_session: TaskSession | None = None


def random_recipes(tasks: list[str], count: int, domains: tuple[str, ...], seed: int) -> list[Recipe]:
    """`count` recipes with tasks, domains and `test` seeds at random."""
    rng = np.random.default_rng(seed)
    return [
        Recipe(
            task=tasks[int(rng.integers(len(tasks)))],
            seed=seed_range("test").at(int(rng.integers(700_000, 1_000_000))),
            domain=domains[int(rng.integers(len(domains)))],
            sim_hash=sim_hash(),
        )
        for _ in range(count)
    ]


def digest(recipe: Recipe) -> tuple[str, str, bool]:
    """Recipe id, a digest of every array of its episode and of its verdict, and whether that was to accept it."""
    global _session
    _session = _session or TaskSession(render=None)
    encoder = StateEncoder(**slots([recipe.task]))
    episode, verdict, _ = make_episode(recipe, _session, encoder, RolloutOptions())
    content = hashlib.blake2b(repr(verdict.reasons).encode())
    if episode is not None:
        content.update(episode.instruction.encode())
        for name in _FIELDS:
            content.update(np.ascontiguousarray(getattr(episode, name)).tobytes())
    return recipe.id, content.hexdigest(), verdict.accepted


def run(tasks: list[str], recipes: int, domains: tuple[str, ...], seed: int) -> list[dict[str, object]]:
    """One row: how many of the recipes came out equal in one process and, the other way round, in two others."""
    drawn, context = random_recipes(tasks, recipes, domains, seed), multiprocessing.get_context("spawn")
    with context.Pool(1) as one, context.Pool(2) as two:
        first = one.imap(digest, drawn)
        second = two.imap(digest, drawn[::-1])
        made = {recipe_id: (content, accepted) for recipe_id, content, accepted in first}
        again = {recipe_id: content for recipe_id, content, _ in second}
    same = sum(again[recipe.id] == made[recipe.id][0] for recipe in drawn)
    row: dict[str, object] = {
        "what": "episodes bit-exact in one process and, in reverse order, in two others",
        "recipes": recipes,
        "equal": same,
        "accepted": sum(accepted for _, accepted in made.values()),
        "tasks": len({recipe.task for recipe in drawn}),
        "domains": ", ".join(domains),
    }
    return [row]
