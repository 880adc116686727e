"""A sweep in MLflow: an experiment of its own, a parent run with the report, and one child per cell.

The children write themselves, as any run does. The parent gets, for every arm, the held-out error and the success with
the *experience throughput as step*: its chart of metrics is the scaling curve, without any setting up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from embodichain.app.config import MlflowConfig
from embodichain.app.progress import final_metrics
from embodichain.app.version import code_version
from embodichain.telemetry.logger import LoggerConfig, RunLogger
from embodichain.telemetry.metrics import metric_part

REGISTERED_FILES = ("checkpoint.json", "ema.safetensors")


class SweepRecord:
    """The parent run.

    Args:
        mlflow: the base configuration's settings.
        output: the folder that the sweep's folder is in.
        name: of the sweep.
        run_id: of a resumed sweep; empty: a new one.
        params: what stands on the parent's page.

    Raises:
        ValueError: the tracking store cannot be opened.
    """

    def __init__(self, mlflow: MlflowConfig, output: str, name: str, run_id: str, params: Mapping[str, Any]) -> None:
        self._config = LoggerConfig.of(replace(mlflow, experiment=name), output, name, run_id)
        self._logger = RunLogger(self._config)
        self._logger.log_params(params)
        self._logger.set_tags({"mlflow.source.git.commit": code_version(), "kind": "sweep"})
        self._logger.flush()
        self.name, self.run_id = name, self._logger.run_id

    def child(self, mlflow: MlflowConfig, labels: Mapping[str, str]) -> MlflowConfig:
        """The settings of a cell's own record."""
        return MlflowConfig(
            tracking_uri=self._logger.config.tracking_uri,
            experiment=self.name,
            artifacts=self._logger.config.artifact_root,
            parent=self.run_id,
            labels={**mlflow.labels, **labels},
        )

    def discard(self, run_id: str) -> None:
        """Hide the record of an attempt that another one takes the place of (MLflow keeps it as deleted)."""
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException):  # it never got that far, or somebody has deleted it
            self._client().delete_run(run_id)

    def curve(self, summaries: Sequence[tuple[str, str, Mapping[str, Any]]]) -> None:
        """The scaling curves: (name of the curve, point of it, summary) of every finished cell, seeds averaged."""
        points: dict[tuple[str, str], list[dict[str, float]]] = {}
        for name, point, summary in summaries:
            points.setdefault((name, point), []).append(final_metrics(dict(summary)))
        curves: list[tuple[int, dict[str, float]]] = []
        for (name, _), runs in points.items():
            values = {
                f"{key}_by_throughput/{metric_part(name)}": sum(run[key] for run in runs) / len(runs)
                for key in ("heldout_error", "success")
                if all(key in run for run in runs)
            }
            curves.append((round(sum(run["experience_throughput"] for run in runs) / len(runs)), values))
        for step, values in sorted(curves, key=lambda point: point[0]):
            self._logger.log_metrics(values, step=step)

    def attach(self, paths: Sequence[tuple[Path, str | None]]) -> None:
        """Files for the parent's artifacts, each under a folder of its own or at the top."""
        for path, folder in paths:
            self._logger.log_artifact(path, folder)

    def register(self, run_id: str, checkpoint: Path, why: str) -> str:
        """Make a cell's checkpoint a version of the registered model that is called like the sweep; returns it.

        What is registered is what `embodichain evaluate` and `serve` load: settings and averaged weights. It is no
        pyfunc model.
        """
        from mlflow.exceptions import MlflowException

        client = self._client()
        for name in REGISTERED_FILES:
            client.log_artifact(run_id, str(checkpoint / name), "checkpoint")
        with contextlib.suppress(MlflowException):  # an earlier end of this sweep made it
            client.create_registered_model(self.name, description="Best cell of each end of this sweep.")
        for known in client.search_model_versions(f"run_id='{run_id}'"):
            if known.name == self.name:
                return str(known.version)
        source = f"{client.get_run(run_id).info.artifact_uri}/checkpoint"
        version = client.create_model_version(self.name, source=source, run_id=run_id, description=why)
        return str(version.version)

    def finish(self, status: str) -> bool:
        """Write what is left and close the parent as `done`, `stopped` or `failed`."""
        return self._logger.finish(status)

    def _client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self._logger.config.tracking_uri)
