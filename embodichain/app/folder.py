"""The folder of one run, and the small state that lets it be resumed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embodichain.actors.pool import PoolCounts
from embodichain.app.config import ConfigError, RunConfig, load_config, new_folder, save_config
from embodichain.app.settings import write_json
from embodichain.archive import Location
from learner.checkpoint import list_checkpoints


@dataclass(kw_only=True)
class RunState:
    """What a resumed run needs besides checkpoints and shard snapshots.

    Attributes:
        status: `running`, `stopped`, `done` or `failed`.
        recipes_drawn: position of the recipe stream.
        elapsed_s: wall time spent so far, over all starts.
        starts: how often the run was started.
        nodes: of the Ray cluster at the last start.
        counts: what the actor pool counted.
        lengths: task -> seed -> expert steps on evaluation seeds.
        evaluations: one entry per scored checkpoint, in order.
        heldout: held-out errors of each checkpoint, in order.
        checkpoints: by step, as text: what the learner had counted by then, and what the simulators had spent and
            brought until it was seen (`at_s`, as `elapsed_s`).
        faults: fault name -> count, beyond the pool's own.
        sim_hash: of the simulator that the run last started with.
        mlflow_run_id: the MLflow run that a resumed run goes on with.
        archive: what the run's archive holds, and why archiving stopped if it did; empty without one.
    """

    status: str = "running"
    recipes_drawn: int = 0
    elapsed_s: float = 0.0
    starts: int = 0
    nodes: int = 1
    counts: PoolCounts = field(default_factory=PoolCounts)
    lengths: dict[str, dict[int, int]] = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    heldout: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: dict[str, dict[str, float]] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    sim_hash: str = ""
    mlflow_run_id: str | None = None
    archive: dict[str, Any] = field(default_factory=dict)


class RunFolder:
    """Paths inside `runs/<name>/`, and the writing of its small files (each one whole or not at all).

    Args:
        path: the folder.
        storage: the run's `storage`: checkpoints and replay snapshots lie in `storage/<name>/`, if it is set.
    """

    def __init__(self, path: Path, storage: str = "") -> None:
        kept = Location.of(storage) / path.name if storage else Location.of(path.absolute())
        self.path = path
        self.config = path / "config.yaml"
        self.state = path / "state.json"
        self.summary = path / "summary.json"
        self.report = path / "report.md"
        self.quarantine = path / "quarantine.jsonl"
        self.checkpoints = kept / "checkpoints"
        self.snapshots = kept / "replay"
        self.ledgers = path / "replay"
        self.videos = path / "videos"

    @classmethod
    def create(cls, config: RunConfig) -> RunFolder:
        """Make a new folder; a number is added to a name that is taken.

        Raises `ConfigError` for a storage that holds another run of that name.
        """
        folder = cls(new_folder(config.output, config.name), config.storage)
        if config.storage and (folder.checkpoints.names() or folder.snapshots.names()):
            folder.path.rmdir()
            raise ConfigError(
                f"storage={config.storage}: {folder.path.name} holds checkpoints or snapshots of another run there; "
                "expected another name, or another place"
            )
        for part in (folder.checkpoints.local, folder.ledgers, folder.videos):
            if part is not None:
                part.mkdir(parents=True, exist_ok=True)
        save_config(config, folder.config)
        return folder

    @classmethod
    def open(cls, run: str | Path, output: str = "runs") -> tuple[RunFolder, RunConfig, RunState]:
        """Open the folder of an earlier run, given by path or by name.

        Raises:
            ConfigError: there is no such run, or its state cannot be read.
        """
        path = Path(run) if Path(run).is_dir() else Path(output) / str(run)
        folder = cls(path.absolute())
        if not folder.config.is_file() or not folder.state.is_file():
            raise ConfigError(f"resume={run}: no run there; expected a folder with config.yaml and state.json")
        config = load_config(folder.config)
        folder = cls(folder.path, config.storage)
        return folder, config, folder.read_state()

    def read_state(self) -> RunState:
        """Inverse of `write_state`. Raises `ConfigError` for a file that is no state."""
        try:
            data = json.loads(self.state.read_text())
            counts = data.pop("counts")
            counts["rejected"], counts["faults"] = Counter(counts["rejected"]), Counter(counts["faults"])
            lengths = {task: {int(s): n for s, n in known.items()} for task, known in data.pop("lengths").items()}
            faults = Counter(data.pop("faults"))
            return RunState(counts=PoolCounts(**counts), lengths=lengths, faults=faults, **data)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.state}: not the state of a run ({error!r})") from error

    def write_state(self, state: RunState) -> None:
        """Replace `state.json`."""
        write_json(self.state, {**vars(state), "counts": vars(state.counts)})

    def checkpoint(self, step: int) -> str:
        """Where the checkpoint of a step is, or will be."""
        return str(self.checkpoints / f"step_{step}")

    def latest_checkpoint(self) -> str | None:
        """The newest complete checkpoint, or None."""
        steps = list_checkpoints(str(self.checkpoints))
        return self.checkpoint(steps[-1]) if steps else None
