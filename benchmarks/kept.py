"""Trials of a benchmark that takes an hour, kept a setting at a time: a command that was stopped goes on from there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embodichain.evaluation.closed_loop import TrialResult

Measured = tuple[list[TrialResult], dict[str, Any]]


class Kept:
    """A file with a line per setting.

    Args:
        path: made if missing; None: nothing is kept.
        about: what else has to be equal for a line to stand for a measurement: the checkpoint, the seeds, the code.
    """

    def __init__(self, path: Path | None = None, **about: object) -> None:
        self._path, self._about = path, about

    def __call__(self, setting: dict[str, Any], measure: Callable[[], Measured]) -> Measured:
        """The trials of `setting` and what else was measured: as they were kept, or else from `measure`."""
        key = json.loads(json.dumps({**self._about, **setting}))
        for line in self._lines():
            if line["of"] == key:
                return [TrialResult(**trial) for trial in line["trials"]], line["more"]
        trials, more = measure()
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"of": key, "trials": [asdict(trial) for trial in trials], "more": more})
            with self._path.open("a") as file:
                file.write(f"\n{text}\n")  # whatever was cut off before ends here
        return trials, more

    def _lines(self) -> list[dict[str, Any]]:
        """All whole lines; one that a kill or a full disk cut off counts for nothing."""
        if self._path is None or not self._path.exists():
            return []
        found = []
        for text in self._path.read_text(errors="replace").splitlines():
            try:
                found.append(json.loads(text))
            except json.JSONDecodeError:
                continue
        return found
