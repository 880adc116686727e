"""Recipes that took a simulator process down: written to disk at once, never tried again in that run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from embodichain.contracts import Recipe


class Quarantine:
    """The recipes in `path`, a JSON line each: `recipe`, `recipe_id`, `fault` and `time` (UTC).

    Args:
        path: read if it exists (a resumed run), then appended to. A line that a crash has torn is ignored.
        announce: told one line about every recipe that is added.
    """

    def __init__(self, path: Path, announce: Callable[[str], None] | None = None) -> None:
        self._path, self._announce = path, announce
        self._ids: set[str] = set()
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                self._ids.add(json.loads(line)["recipe_id"])
            except (json.JSONDecodeError, KeyError, TypeError):
                continue

    def __contains__(self, recipe: Recipe) -> bool:
        return recipe.id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, recipe: Recipe, fault: str) -> None:
        """Keep `recipe` out of the run from now on; `fault` is what it did, as the pool counts it."""
        self._ids.add(recipe.id)
        time = datetime.now(UTC).isoformat(timespec="seconds")
        row = {"recipe": asdict(recipe), "recipe_id": recipe.id, "fault": fault, "time": time}
        with self._path.open("a") as file:
            file.write(("\n" if self._torn() else "") + json.dumps(row) + "\n")
        if self._announce is not None:
            self._announce(f"quarantined {recipe.task} seed {recipe.seed}: {fault}")

    def _torn(self) -> bool:
        """Whether the last line was never finished."""
        return self._path.exists() and not self._path.read_bytes().endswith(b"\n") and self._path.stat().st_size > 0
