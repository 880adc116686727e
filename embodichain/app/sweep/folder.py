"""The folder of one sweep: where everything lies, what is finished, and the small journal of attempts.

    runs/<sweep>/             sweep.yaml, base.yaml, plan.*, sweep.json (the journal), report.*, figures/
    runs/<sweep>/<cell>/      one run, as `embodichain run` writes it, and cell.json: arm, levels, the plan's hash
    runs/<sweep>.work/        no results: archives/, side/ (trials, preparations), configs/, logs/, attempts/

Whether a cell is finished is read from its own `summary.json`, never from the journal.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from embodichain.app.config import save_config
from embodichain.app.settings import ConfigError, write_json
from embodichain.app.sweep.cells import Cell
from embodichain.app.sweep.config import SweepConfig, beside, load_sweep


@dataclass(kw_only=True)
class Entry:
    """What the journal knows of one run.

    Attributes:
        attempts: how often it was started.
        failed: why its last attempt failed; empty: it did not.
        anew: its next attempt begins anew, whatever lies there: it failed, and is to be tried again.
        seconds: wall time of the process that finished it.
    """

    attempts: int = 0
    failed: str = ""
    anew: bool = False
    seconds: float = 0.0


@dataclass(kw_only=True)
class Journal:
    """`sweep.json`.

    Attributes:
        mlflow_run_id: the parent run.
        wall_seconds: of the sweep, over all starts.
        starts: how often it was started.
        choices: tuning group -> the settings chosen, with every trial's error.
        entries: by the run's name.
    """

    mlflow_run_id: str = ""
    wall_seconds: float = 0.0
    starts: int = 0
    choices: dict[str, dict[str, Any]] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)

    def entry(self, name: str) -> Entry:
        """The entry of a run, made if it is new."""
        return self.entries.setdefault(name, Entry())


class SweepFolder:
    """Paths, the journal, and who holds them. Args: the sweep's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.work = self.path.with_name(f"{self.path.name}.work")
        self.sweep, self.base = self.path / "sweep.yaml", self.path / "base.yaml"
        self.report = self.path / "report.md"
        self._journal = self.path / "sweep.json"
        self._lock: Any = None

    @classmethod
    def create(cls, config: SweepConfig, source: Path) -> SweepFolder:
        """A new folder with all that a resume needs. Raises `ConfigError` if the name is taken."""
        folder = cls(Path(config.output) / config.name)
        if folder.path.exists():
            raise ConfigError(
                f"name={config.name}: {folder.path} exists; go on with it (embodichain sweep --resume {config.name}), "
                "or give the new one another name"
            )
        base, plan = beside(source, config.base), beside(source, config.plan) if config.plan else None
        made = cls(folder.path.with_name(f".{folder.path.name}.new"))  # appears whole or not at all
        shutil.rmtree(made.path, ignore_errors=True)
        made.path.mkdir(parents=True)
        shutil.copy(base, made.base)
        kept = replace(config, base=made.base.name, plan=f"plan{plan.suffix}" if plan else "")
        if plan:
            shutil.copy(plan, made.path / kept.plan)
        made.sweep.write_text(yaml.safe_dump(_plain(asdict(kept)), sort_keys=False))
        made.write_journal(Journal())
        made.path.rename(folder.path)
        return folder

    @classmethod
    def open(cls, name: str, output: str = "runs") -> tuple[SweepFolder, SweepConfig]:
        """An earlier sweep, by folder or by name. Raises `ConfigError` if there is none."""
        folder = cls(Path(name) if Path(name).is_dir() else Path(output) / name)
        if not folder.sweep.is_file() or not folder._journal.is_file():
            raise ConfigError(f"resume={name}: no sweep there; expected a folder with sweep.yaml and sweep.json")
        return folder, load_sweep(folder.sweep)

    def hold(self) -> None:
        """Be the only one that works on this sweep. Raises `ConfigError` if another process does."""
        self.work.mkdir(parents=True, exist_ok=True)
        self._lock = (self.work / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"sweep {self.path.name}: another process works on it ({self.work / 'lock'})") from error

    def journal(self) -> Journal:
        """What was written last. Raises `ConfigError` for a damaged file."""
        try:
            data = json.loads(self._journal.read_text())
            entries = {name: Entry(**entry) for name, entry in data.pop("entries").items()}
            return Journal(entries=entries, **data)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ConfigError(f"{self._journal}: not the journal of a sweep ({error!r})") from error

    def write_journal(self, journal: Journal) -> None:
        """Replace `sweep.json`."""
        write_json(self._journal, asdict(journal))

    def archive(self, name: str) -> Path:
        """Where a prepared archive is."""
        return self.work / "archives" / name

    def run(self, cell: Cell) -> Path:
        """The folder of a cell's run."""
        return (self.path if cell.kind == "cell" else self.work / "side") / cell.name

    def log(self, cell: Cell) -> Path:
        """What a cell's process printed."""
        return self.work / "logs" / f"{cell.name}.txt"

    def write_config(self, cell: Cell, **places: Any) -> Path:
        """The configuration that a cell's process is given; `places` replace fields of it."""
        path = self.work / "configs" / f"{cell.name}.yaml"
        for parent in (path.parent, self.log(cell).parent, self.run(cell).parent):
            parent.mkdir(parents=True, exist_ok=True)
        save_config(replace(cell.config, name=cell.name, output=str(self.run(cell).parent), **places), path)
        return path

    def summary(self, cell: Cell) -> dict[str, Any] | None:
        """The summary of a finished cell; None for any other."""
        path = self.run(cell) / "summary.json"
        if not path.is_file():
            return None
        try:
            summary = json.loads(path.read_text())
        except json.JSONDecodeError:
            return None
        return summary if summary.get("status") == "done" else None

    def shortfall(self, cell: Cell) -> str:
        """Why a run that ended well is no result all the same: it lacks steps, trials or an error; else empty."""
        summary, learner = self.summary(cell), cell.config.learner
        if summary is None or cell.kind == "prepare":
            return ""
        if learner.minutes is None and summary["learner_steps"] < learner.steps:
            return f"ended after {summary['learner_steps']} of {learner.steps} steps: its archive was used up"
        rows = {(row["task"], row["domain"]): row for row in summary.get("success", ())}
        for domain in cell.config.scored_domains:  # cells are compared over the same seeds alone
            for task in sorted(cell.config.active_tasks):
                row = rows.get((task, domain), {"n": 0, "left_out": 0})
                if row["n"] < cell.config.evaluation.seeds:
                    gone = summary.get("faults", {}).get("evaluation_block_given_up")
                    why = "evaluators died" if gone else f"the expert fails on {row['left_out']} of those tried"
                    return f"{task} was scored on {row['n']} of {cell.config.evaluation.seeds} seeds: {why}"
        if final_error(summary) is None:
            measured = _final_reading(summary).get("errors")
            return f"its last checkpoint has no held-out error: {'not finite' if measured else 'evaluators died'}"
        return ""

    def set_aside(self, cell: Cell, attempt: int) -> str:
        """Move what an earlier attempt left out of the way; returns its MLflow run, if it had one."""
        left = self.run(cell)
        if not left.exists():
            return ""
        state = left / "state.json"
        run_id = json.loads(state.read_text()).get("mlflow_run_id") if state.is_file() else None
        target = self.work / "attempts" / f"{cell.name}-{attempt}"
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(left, target)
        return run_id or ""

    def write_cell(self, cell: Cell, plan_hash: str, *, failed: str = "") -> None:
        """`cell.json` beside the run: its place in the sweep, and why it counts as failed, if it does."""
        content = {"arm": cell.labels["arm"], "values": cell.levels, "seed": cell.seed, "plan_hash": plan_hash}
        if failed:
            content["failed"] = failed
        self.run(cell).mkdir(parents=True, exist_ok=True)
        write_json(self.run(cell) / "cell.json", content)

    def plan_hash(self, config: SweepConfig) -> str:
        """The analysis plan's hash as it was when the sweep was made; empty without one."""
        from embodichain.law.plan import load_plan

        return load_plan(self.path / config.plan).hash() if config.plan else ""


def _plain(tree: Any) -> Any:
    """Without tuples, which YAML would write as Python's own."""
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    return [_plain(value) for value in tree] if isinstance(tree, list | tuple) else tree


def final_error(summary: dict[str, Any]) -> float | None:
    """The held-out error of a run's last checkpoint, not of an earlier one; None: not known, or not finite."""
    return _final_reading(summary).get("error")


def _final_reading(summary: dict[str, Any]) -> dict[str, Any]:
    last: dict[str, Any] = summary["readings"][-1] if summary.get("readings") else {}
    return last if last.get("step") == summary["learner_steps"] else {}
