"""Recipes to arrays: the episodes of an archive made again in the simulator, on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf

from embodichain.app.config import EncoderConfig, RunConfig
from embodichain.archive import Archive, ArchiveWriter
from embodichain.contracts import Episode, Recipe


def episode_maker(settings: dict[str, Any]) -> Callable[[Recipe], Episode | None]:
    """A function that makes a recipe's episode as `RunConfig.made_with` says; None where physics rejects it.

    Raises:
        ValueError: if the settings lack something.
    """
    from embodichain.app.components import make_encoder, make_session
    from embodichain.rollout import RolloutOptions, make_episode

    missing = [key for key in ("tasks", "tau", "encoder") if key not in settings]
    if missing:
        raise ValueError(f"the archive does not say what its episodes were made with ({missing[0]} is missing)")
    encoder = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(EncoderConfig), settings["encoder"]))
    assert isinstance(encoder, EncoderConfig)
    config = RunConfig(tasks=dict.fromkeys(settings["tasks"], 1.0), encoder=encoder)
    session, tokens = make_session(config, render=False), make_encoder(config)

    def make(recipe: Recipe) -> Episode | None:
        episode, verdict, _ = make_episode(recipe, session, tokens, RolloutOptions(tau=settings["tau"]))
        return episode if verdict.accepted else None

    return make


def other_simulators(archive: Archive, sim_hash: str) -> dict[str, int]:
    """How many entries were made by which simulator other than `sim_hash`."""
    return dict(Counter(e.recipe.sim_hash for e in archive.entries() if e.recipe.sim_hash != sim_hash))


def materialise(
    source: Archive,
    target: Archive,
    make: Callable[[Recipe], Episode | None],
    *,
    restamp: str = "",
    on_recipe: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Make every recipe of `source` and keep its episode in shard 0 of `target`; what is there already is not redone.

    Args:
        source: recipes, or arrays of which the recipes are taken.
        target: an `arrays` archive.
        make: recipe -> accepted episode, or None.
        restamp: the present simulator's hash, written into every recipe; empty leaves them as they are.
        on_recipe: told after each one.

    Returns:
        Counts: `made`, `there` already, `rejected` by physics.
    """
    counts = {"made": 0, "there": 0, "rejected": 0}
    known = {entry.id for entry in target.entries()}
    with ArchiveWriter(target, 0) as writer:
        for recipe in _stamped(source, restamp):
            if recipe.id in known:
                counts["there"] += 1
            else:
                episode = make(recipe)
                counts["rejected" if episode is None else "made"] += 1
                if episode is not None:
                    writer.append(episode)
            on_recipe()
    return counts


def _stamped(source: Archive, sim_hash: str) -> Sequence[Recipe]:
    recipes = [entry.recipe for entry in source.entries()]
    return [replace(recipe, sim_hash=sim_hash) for recipe in recipes] if sim_hash else recipes
