"""Whether the archives and the storage that a configuration names can be what it wants of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from embodichain.actors.training import check_all_training
from embodichain.app.settings import ConfigError, check_writable
from embodichain.archive import Archive, Location
from embodichain.contracts import Recipe

if TYPE_CHECKING:
    from embodichain.app.config import RunConfig


def check_archives(config: RunConfig) -> None:
    """Archives and storage must be places that exist or can. Raises `ConfigError`."""
    try:
        for key, place in (("storage", config.storage), ("archive.path", config.archive.path)):
            local = Location.of(place).local if place else None
            if local is not None:
                check_writable(key, str(local))
        if config.archive.path and (Location.of(config.archive.path) / "archive.json").exists():
            Archive.open(config.archive.path).require(config.archive.kind, config.made_with)
        if config.episodes == "simulators":
            return
        if not config.episodes.startswith("archive:"):
            raise ConfigError(f"episodes={config.episodes}: expected simulators or archive:PATH")
        source = Archive.open(config.source_archive)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if source.kind != "arrays":
        raise ConfigError(
            f"episodes={config.episodes}: only recipes are kept there; `embodichain archive materialise` makes their "
            "episodes"
        )
    _check_recipes(config, [entry.recipe for entry in source.entries()])
    _check_source(config, source.made_with)
    if config.archive.path and Location.of(config.archive.path) == source.root:
        raise ConfigError(f"archive.path={config.archive.path}: episodes come from there; expected another archive")


def _check_recipes(config: RunConfig, recipes: list[Recipe]) -> None:
    """There must be some, and none that is kept for evaluation, whichever of them this run would draw."""
    from tasks.registry import task_info, task_names

    if not recipes:
        raise ConfigError(f"episodes={config.episodes}: it holds no episodes")
    try:
        check_all_training(recipes, {name for name in task_names() if task_info(name).split != "train"})
    except ValueError as error:
        raise ConfigError(f"episodes={config.episodes}: {error}") from error


def _check_source(config: RunConfig, made: dict[str, Any]) -> None:
    """Archived tokens must be those that this run's encoder makes, or evaluation would show the model others."""
    from tasks.registry import slots, task_names

    own = json.loads(json.dumps(config.made_with))
    if made.get("encoder") != own["encoder"] or (config.encoder.name != "state" and made.get("tau") != own["tau"]):
        raise ConfigError(
            f"episodes={config.episodes}: made with encoder {made.get('encoder')} and tau={made.get('tau')}; expected "
            f"{own['encoder']} and tau={own['tau']}"
        )
    known = [task for task in made.get("tasks", []) if task in task_names()]
    missing = sorted(set(config.active_tasks) - set(known))
    if missing:
        raise ConfigError(f"tasks.{missing[0]}: {config.episodes} has no episodes of it; expected some of {known}")
    if config.encoder.name == "state" and slots(known) != slots(list(config.active_tasks)):
        raise ConfigError(
            f"tasks={sorted(config.active_tasks)}: the encoder has {slots(list(config.active_tasks))} for them, "
            f"{config.episodes} was made with {slots(known)} (tasks {known}); expected tasks with as many"
        )
