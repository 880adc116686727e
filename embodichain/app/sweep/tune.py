"""Which settings a group's trials chose. Owns: the rule, and its record. Every group had the same candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embodichain.app.sweep.cells import Cell
from embodichain.app.sweep.config import TuneConfig
from embodichain.app.sweep.folder import SweepFolder, final_error


def choose(trials: Sequence[Cell], folder: SweepFolder, tune: TuneConfig) -> dict[str, dict[str, Any]]:
    """Group -> the candidate with the lowest held-out error, beside all errors.

    A trial that failed is recorded with None and cannot win; a group whose trials all failed keeps its own settings.
    """
    choices: dict[str, dict[str, Any]] = {}
    for trial in trials:
        summary = folder.summary(trial)
        error = final_error(summary) if summary else None
        candidate = {key: trial.settings[key] for key in _keys(tune)}
        group = choices.setdefault(trial.group, {"settings": {}, "trials": []})
        group["trials"].append({"name": trial.name, "settings": candidate, "error": error})
    for group in choices.values():
        scored = [each for each in group["trials"] if each["error"] is not None]
        if scored:
            group["settings"] = min(scored, key=lambda each: each["error"])["settings"]
    return choices


def _keys(tune: TuneConfig) -> list[str]:
    """The run settings that candidates differ in."""
    keys: dict[str, None] = {}
    for axis, levels in tune.grid.items():
        keys.update(
            dict.fromkeys(key for level in levels.values() for key in level)
            if isinstance(levels, dict)
            else {axis: None}
        )
    return list(keys)
