"""Trials of a benchmark that takes an hour, kept a setting at a time: a command that was stopped goes on from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embodichain.app.settings import write_json
from embodichain.evaluation.closed_loop import TrialResult

Measured = tuple[list[TrialResult], dict[str, Any]]


class Kept:
    """A folder with a file per setting.

    Args:
        folder: made when something is kept; None: nothing is.
        about: what else has to be equal for a file to stand for a measurement: the step, the seeds, the code.
    """

    def __init__(self, folder: Path | None = None, **about: object) -> None:
        self._folder, self._about = folder, about

    def __call__(self, setting: dict[str, Any], measure: Callable[[], Measured]) -> Measured:
        """The trials of `setting` and what else was measured: as they were kept, or else from `measure`."""
        if self._folder is None:
            return measure()
        of = {**self._about, **setting}
        file = self._folder / f"{hashlib.blake2b(json.dumps(of).encode(), digest_size=8).hexdigest()}.json"
        try:
            kept = json.loads(file.read_bytes())
            return [TrialResult(**trial) for trial in kept["trials"]], kept["more"]
        except (FileNotFoundError, ValueError):  # never measured, or damaged since
            trials, more = measure()
        self._folder.mkdir(exist_ok=True)
        write_json(file, {"of": of, "trials": [asdict(trial) for trial in trials], "more": more})
        return trials, more
