"""One snapshot of a run for everyone who watches it: the terminal, MLflow and the summary.

Takes what the parts report, hands on plain dicts. Rates are taken between snapshots; everything else is
counted where it happens.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from rich.console import Console

from embodichain.app.config import RunConfig
from embodichain.app.folder import RunFolder, RunState
from embodichain.app.version import code_version
from embodichain.replay.accounting import ReplayStats
from embodichain.telemetry.live import LiveView, Snapshot
from embodichain.telemetry.logger import LoggerConfig, RunLogger
from embodichain.telemetry.logger_actor import LoggerHandle, start_logger
from embodichain.telemetry.metrics import error_metrics, success_metrics
from embodichain.telemetry.report import write_report
from learner.heldout import first_and_last

RATE_SECONDS = 30.0
METRIC_NAMES = {  # the learner's own names -> the catalogue's
    "video": "learner/loss_video",
    "action": "learner/loss_action",
    "lr": "learner/learning_rate",
    "sample_age_s": "replay/sample_age_s",
    "experience_throughput": "replay/experience_throughput",
}


class Progress:
    """Shows and logs a run. A context manager around the driver's loop.

    Attributes:
        last: the latest snapshot, for the summary.
        replay_full: producers are held back by the replay, so that a silent actor need not be a hung one.
    """

    def __init__(self, config: RunConfig, folder: RunFolder, state: RunState, console: Console) -> None:
        self._config, self._folder, self._state, self._console = config, folder, state, console
        minutes = config.learner.minutes
        self._view = LiveView(
            console,
            name=folder.path.name,
            total_seconds=None if minutes is None else 60 * minutes,
            total_steps=config.learner.steps,
        )
        self._logger: LoggerHandle | None = None
        self._phase, self._note = "starting", ""
        self._rates: deque[tuple[float, int, int, int]] = deque()
        self._learner: dict[str, Any] = {}
        self._losses: dict[str, float] = {}
        self.last: dict[str, Any] | None = None
        self.replay_full = False

    def __enter__(self) -> Progress:
        tags = {
            "mlflow.source.git.commit": code_version(),
            "config_hash": self._config.hash(),
            "encoder": self._config.encoder.name,
            "model": self._config.learner.network.kind,
        }
        if self._config.mlflow.parent:
            tags["mlflow.parentRunId"] = self._config.mlflow.parent
        params = {**asdict(self._config), **self._config.mlflow.labels}
        try:
            self._logger = start_logger(self._logger_config(), params=params, tags=tags)
        except ValueError as error:
            if not self._state.mlflow_run_id:
                raise RuntimeError(str(error)) from error
            # A run can go on without its history there; without a place to write to it would have been refused.
            self._console.print(f"[yellow]MLflow[/yellow]: {error}; a new run is begun there")
            self._state.mlflow_run_id = None
            self._logger = start_logger(self._logger_config(), params=params, tags=tags)
        self._state.mlflow_run_id = self._logger.run_id
        self._view.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the screen and MLflow in a final state, whatever happened."""
        self._view.__exit__(kind, error, trace)
        if error is not None and self._logger is not None:
            self._logger.finish("failed")

    def phase(self, name: str) -> None:
        """Say what the run does now."""
        self._phase = name
        self._view.update(cast("Snapshot", {**(self.last or {}), "phase": name}))

    def note(self, text: str) -> None:
        """One line under the tables, until the next one."""
        self._note = text

    def scored(self, entry: dict[str, Any]) -> None:
        """A checkpoint has been scored: into MLflow."""
        for row in entry["scores"]:
            self._log(entry["step"], success_metrics(row))

    def heldout(self, errors: dict[str, Any]) -> None:
        """A checkpoint's held-out errors have arrived: into MLflow."""
        names = {"action": "action_error", "input_blind": "input_blind_error"}
        numbers = {key: value for key, value in errors.items() if isinstance(value, float) and key != "step"}
        values = {f"heldout/{names.get(key, key)}": value for key, value in numbers.items()}
        self._log(int(errors["step"]), values | error_metrics(errors.get("by_domain", {})))

    def snapshot(
        self,
        *,
        state: RunState,
        elapsed_s: float,
        learner: dict[str, Any],
        learner_metrics: Sequence[tuple[int, dict[str, float]]],
        shards: Sequence[ReplayStats],
        evaluator_faults: Counter[str],
        evaluation_left: tuple[int, int],
    ) -> dict[str, Any]:
        """Everything about the run at this moment, as plain data (a superset of the live view's `Snapshot`)."""
        self._learner = learner or self._learner
        for step, values in learner_metrics:
            self._losses = values
            self._log(step, {METRIC_NAMES.get(key, f"learner/{key}"): value for key, value in values.items()})
        replay, counts = ReplayStats.merge(shards), state.counts
        self.replay_full = replay.holding_back > 0
        rates = self._rate(counts.generated, replay.unique_pairs, int(self._learner.get("step", 0)))
        elapsed_learning = float(self._learner.get("elapsed_s", 0.0))
        left, total = evaluation_left
        snapshot: dict[str, Any] = {
            "phase": f"{self._phase} ({total - left}/{total} blocks)" if total else self._phase,
            "elapsed_s": elapsed_s,
            "message": self._note,
            "tasks": counts.tasks,
            "episodes_per_min": rates[0] * 60,
            "fresh_pairs_per_s": rates[1],
            "steps_per_s": rates[2],
            "learner_step": int(self._learner.get("step", 0)),
            "experience_throughput": self._learner.get("experience_throughput"),
            "reuse": {"max": replay.reuse_max, "mean": replay.reuse_mean, "bound": self._config.replay.bound},
            "sample_age_s": replay.age_mean_s,
            "loss_video": self._losses.get("video"),
            "loss_action": self._losses.get("action"),
            "grad_norm": self._losses.get("grad_norm"),
            "stall_fraction": self._learner.get("stall_s", 0.0) / elapsed_learning if elapsed_learning else None,
            "actor_idle_fraction": counts.idle_fraction,
            "success": success_rows(state.evaluations),
            "heldout": heldout_summary(state.heldout),
            "faults": dict(counts.faults + evaluator_faults + state.faults),
            "replay": replay.as_dict(),
            "shards": [part.as_dict() for part in shards],
            "learner": self._learner,
        }
        return snapshot

    def update(self, snapshot: dict[str, Any]) -> None:
        """Show a snapshot and log its numbers."""
        self.last = snapshot
        self._log_snapshot(snapshot)
        self._view.update(cast("Snapshot", snapshot))

    def finish(self, status: str) -> None:
        """Write the report, attach every product to the MLflow run, and close it; the report whatever MLflow does."""
        from mlflow.exceptions import MlflowException

        assert self._logger is not None
        last = self._logger.finish(status)
        self._logger = None
        run, history = None, {}
        try:
            if last.get("failing"):
                raise ValueError(last.get("error"))
            run = RunLogger(self._logger_config())
            history = run.history()
        except (ValueError, MlflowException) as error:
            self._console.print(f"[yellow]MLflow[/yellow] is incomplete: {str(error).splitlines()[0]}")
        folder, videos = self._folder, sorted(self._folder.videos.glob("*.mp4"))
        summary = json.loads(folder.summary.read_text()) if folder.summary.exists() else None
        if summary is not None:
            write_report(folder.path, summary, history, videos=videos)
        if run is not None:
            self._attach(run, summary, status, videos)

    def _attach(self, run: RunLogger, summary: dict[str, Any] | None, status: str, videos: Sequence[Path]) -> None:
        folder = self._folder
        if summary is not None:
            run.log_metrics(final_metrics(summary), step=summary["learner_steps"])
        for path in (folder.config, folder.summary, folder.report):
            if path.exists():
                run.log_artifact(path)
        for path in sorted((folder.path / "figures").glob("*")):
            run.log_artifact(path, "figures")
        for path in videos:
            run.log_artifact(path, "videos")
        run.finish(status)

    def _logger_config(self) -> LoggerConfig:
        config, run_id = self._config, self._state.mlflow_run_id or ""
        return LoggerConfig.of(config.mlflow, config.output, self._folder.path.name, run_id)

    def _log(self, step: int, values: dict[str, float]) -> None:
        if self._logger is not None:
            self._logger.log_metrics(values, step)

    def _log_snapshot(self, snapshot: dict[str, Any]) -> None:
        replay, tasks = snapshot["replay"], snapshot["tasks"].values()
        generated, accepted = (sum(task[key] for task in tasks) for key in ("generated", "accepted"))
        values = {
            "generation/generated": generated,
            "generation/accepted": accepted,
            "generation/rejected": generated - accepted,
            "generation/acceptance": accepted / generated if generated else None,
            "generation/episodes_per_min": snapshot["episodes_per_min"],
            "generation/actor_idle_fraction": snapshot["actor_idle_fraction"],
            "replay/fresh_pairs_per_s": snapshot["fresh_pairs_per_s"],
            "replay/inserted_pairs_per_s": replay["pairs_inserted"] / max(snapshot["elapsed_s"], 1.0),
            "replay/reuse_max": snapshot["reuse"]["max"],
            "replay/reuse_mean": snapshot["reuse"]["mean"],
            "replay/reuse_bound": snapshot["reuse"]["bound"],
            "replay/episodes": replay["episodes_held"],
            "replay/pairs": replay["pairs_held"],
            "learner/steps_per_s": snapshot["steps_per_s"],
            "learner/stall_fraction": snapshot["stall_fraction"],
            "faults/total": sum(snapshot["faults"].values()),
        }
        self._log(snapshot["learner_step"], {key: float(value) for key, value in values.items() if value is not None})

    def _rate(self, generated: int, unique: int, step: int) -> tuple[float, float, float]:
        """Episodes, fresh pairs and learner steps per second over the last `RATE_SECONDS`."""
        now = time.monotonic()
        self._rates.append((now, generated, unique, step))
        while now - self._rates[0][0] > RATE_SECONDS:
            self._rates.popleft()
        then = self._rates[0]
        seconds = max(now - then[0], 1e-9)
        if len(self._rates) < 2:
            return 0.0, 0.0, 0.0
        return (generated - then[1]) / seconds, (unique - then[2]) / seconds, (step - then[3]) / seconds


def final_metrics(summary: dict[str, Any]) -> dict[str, float]:
    """What a run is compared by, as far as it has them.

    `experience_throughput`, `heldout_error`, `success` (mean over tasks, first scored domain), `core_seconds`.
    """
    rows = summary["success"]
    rates = [row["rate"] for row in rows if row["domain"] == rows[0]["domain"]]
    values = {
        "experience_throughput": summary["experience_throughput"],
        "heldout_error": summary["heldout_error"].get("last"),
        "success": sum(rates) / len(rates) if rates else None,
    }
    if None not in summary["core_seconds"].values():
        values["core_seconds"] = sum(summary["core_seconds"].values())
    return {name: float(value) for name, value in values.items() if value is not None}


def success_rows(evaluations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per task and domain: the latest score, with the rates of all checkpoints in learner order."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in sorted(evaluations, key=lambda e: (e["step"], len(e["scores"]))):
        for score in entry["scores"]:
            key = (score["task"], score["domain"])
            rows[key] = {**score, "history": [*rows.get(key, {}).get("history", []), score["rate"]]}
    return [rows[key] for key in sorted(rows)]


def heldout_summary(errors: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """First and last held-out action error, the last by domain, and the input-blind one; empty before the first.

    None where one is not finite.
    """
    if not errors:
        return {}
    last = max(errors, key=lambda record: record["step"])
    return {**first_and_last(errors), "by_domain": last.get("by_domain", {})}
