"""The fixed held-out set: episodes of seeds that training cannot draw; `replay.heldout` cuts them."""

from __future__ import annotations

from collections.abc import Iterable

from embodichain.contracts import Episode, Recipe, seed_range
from embodichain.encoders import Encoder
from embodichain.rollout import RolloutOptions, make_episode
from tasks.session import TaskSession


def make_heldout_episodes(
    session: TaskSession,
    encoder: Encoder,
    tasks: Iterable[str],
    domain: str,
    per_task: int,
    tau: int,
    sim_hash: str,
    seeds: str = "heldout",
) -> list[Episode]:
    """The first `per_task` accepted episodes of each task from the seed range `seeds`.

    Raises `RuntimeError` if a task's expert solves fewer than half of the seeds tried.
    """
    episodes = []
    for task in tasks:
        kept, index = 0, 0
        while kept < per_task:
            if index >= 2 * per_task + 10:
                raise RuntimeError(f"the expert solved only {kept} of {index} held-out seeds of {task!r}")
            recipe = Recipe(task=task, seed=seed_range(seeds).at(index), domain=domain, sim_hash=sim_hash)
            episode, verdict, _ = make_episode(recipe, session, encoder, RolloutOptions(tau=tau))
            index += 1
            if episode is not None and verdict.accepted:
                episodes.append(episode)
                kept += 1
    return episodes
