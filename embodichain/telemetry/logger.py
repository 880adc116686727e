"""One run's record in MLflow, written in batches by one owner.

Takes metrics, parameters, tags and files; hands on an MLflow run that `mlflow ui` shows. Writing never
stops a training run: what cannot be written (full disk, locked data base) is kept, tried again and reported
through `status()`, once. MLflow is imported when a logger is made, not with this module.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodichain.telemetry.metrics import MetricBuffer, MetricPoint
from embodichain.telemetry.tracking import MlflowConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient

_METRICS_PER_BATCH = 1000  # MLflow's own limits (mlflow/utils/validation.py)
_PARAMS_PER_BATCH = 100
_PARAM_LENGTH = 6000
_TAG_LENGTH = 8000
_KEY_LENGTH = 250
_SQLITE = "sqlite:///"
_FINAL = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


@dataclass(frozen=True, kw_only=True)
class LoggerConfig:
    """Where a run is recorded.

    Attributes:
        tracking_uri: MLflow tracking URI; a file-based SQLite URI needs no server.
        experiment: MLflow experiment; made if it is new.
        artifact_root: folder under which a new experiment keeps its artifacts; empty: the server's choice.
        run_name: name of the run.
        run_id: MLflow run to go on with; empty: start a new one.
        flush_seconds: at most one write per this many seconds, > 0.
        capacity: metric points kept while nothing can be written.
        files: artifacts kept while nothing can be written.
    """

    tracking_uri: str = "sqlite:///runs/mlflow.db"
    experiment: str = "embodichain"
    artifact_root: str = "runs/mlflow-artifacts"
    run_name: str = "run"
    run_id: str = ""
    flush_seconds: float = 2.0
    capacity: int = 100_000
    files: int = 1_000

    def __post_init__(self) -> None:
        if self.flush_seconds <= 0:
            raise ValueError(f"telemetry.flush_seconds={self.flush_seconds}: expected more than 0")

    @classmethod
    def of(cls, mlflow: MlflowConfig, output: str | Path, run_name: str, run_id: str = "") -> LoggerConfig:
        """Of a run under `output` by its settings."""
        return cls(
            tracking_uri=mlflow.uri(output),
            experiment=mlflow.experiment,
            artifact_root=mlflow.artifact_root(output),
            run_name=run_name,
            run_id=run_id,
        )


def flatten(config: Mapping[str, Any] | Sequence[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested configuration as `a.b.0.c` -> text, in its own order; empty containers are kept."""
    items = config.items() if isinstance(config, Mapping) else enumerate(config)
    for key, value in items:
        name = f"{prefix}{key}"
        if isinstance(value, Mapping | list | tuple) and len(value) > 0:
            yield from flatten(value, f"{name}.")
        else:
            yield name, str(value)


class RunLogger:
    """The record of one run. Thread-safe; `log_*` only queue, `flush` writes.

    Attributes:
        config: as given, with `run_id` filled in and the path of a SQLite file made absolute: what another
            process needs to go on with this run.
    """

    def __init__(self, config: LoggerConfig, *, clock: Callable[[], float] = time.time) -> None:
        """Open the run, or make it (with its experiment) if `config.run_id` is empty.

        Raises:
            ValueError: the tracking store cannot be opened, or has no run of that id.
        """
        self._clock = clock
        self._lock = threading.Lock()  # the queues
        self._writing = threading.Lock()  # the store: one flush at a time
        self._points = MetricBuffer(capacity=config.capacity)
        self._files: deque[tuple[str, str | None]] = deque(maxlen=config.files)
        self._tags: dict[str, str] = {}
        self._written = 0
        self._faults = 0
        self._first_fault = ""
        self._failing = False
        self._last_flush = clock()
        config = replace(config, tracking_uri=_absolute_uri(config.tracking_uri))
        self._client, run_id = _open_run(config)
        self.config = replace(config, run_id=run_id)

    @property
    def run_id(self) -> str:
        """The MLflow run id."""
        return self.config.run_id

    def log_metrics(self, values: Mapping[str, float], step: int, t: float | None = None) -> None:
        """Queue metrics of one learner step at time `t` (s since the epoch; None: now).

        Raises:
            ValueError: a negative step or a value that is no number.
        """
        with self._lock:
            self._points.add(values, step=step, t=self._clock() if t is None else t)

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Queue one file (or folder of files) for the run's artifacts, under `folder`."""
        with self._lock:
            self._files.append((str(path), folder))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Queue tags; a later value of the same key wins. Values are cut at 8000 characters."""
        with self._lock:
            self._tags.update({key: str(value)[:_TAG_LENGTH] for key, value in tags.items()})

    def log_params(self, config: Mapping[str, Any]) -> bool:
        """Write a resolved configuration as flattened parameters, at once, in batches of 100.

        MLflow parameters never change: on a resumed run, those already there stay as they are, so the record
        shows what the run began with.

        Returns:
            Whether they were written; otherwise the reason is in `status()`.
        """
        from mlflow.entities import Param

        def write() -> None:
            known = self._client.get_run(self.run_id).data.params
            params = [Param(key[:_KEY_LENGTH], value[:_PARAM_LENGTH]) for key, value in flatten(config)]
            params = [param for param in params if param.key not in known]
            for start in range(0, len(params), _PARAMS_PER_BATCH):
                self._client.log_batch(self.run_id, params=params[start : start + _PARAMS_PER_BATCH])

        with self._writing:
            return self._attempt(write)

    def due(self) -> bool:
        """Whether `flush_seconds` have gone by since the last write."""
        return self._clock() - self._last_flush >= self.config.flush_seconds

    def flush(self) -> bool:
        """Write what is queued. True if nothing is left; what failed stays queued for the next time."""
        with self._writing:
            self._last_flush = self._clock()
            # A list, so that all three are tried: a failing table must not keep the files waiting.
            done = all([self._flush_metrics(), self._flush_tags(), self._flush_files()])
            with self._lock:
                self._failing = not done
            return done

    def finish(self, status: str) -> bool:
        """Flush and close the run as `done`, `stopped` or `failed`. True if everything was written.

        Raises:
            ValueError: another status.
        """
        if status not in _FINAL:
            raise ValueError(f"status={status}: expected one of {', '.join(_FINAL)}")
        flushed = self.flush()
        with self._writing:
            closed = self._attempt(lambda: self._client.set_terminated(self.run_id, _FINAL[status]))
        return flushed and closed

    def status(self) -> dict[str, Any]:
        """`run_id`, points `written`, `pending`, `dropped`; `faults` (failed writes), `failing`, `error`.

        `failing` is about the last flush; `error` is the first failure's line: later ones only count.
        """
        with self._lock:
            return {
                "run_id": self.run_id,
                "written": self._written,
                "pending": len(self._points) + len(self._files) + len(self._tags),
                "dropped": self._points.dropped,
                "faults": self._faults,
                "failing": self._failing,
                "error": self._first_fault,
            }

    def history(self, names: Sequence[str] = ()) -> dict[str, list[MetricPoint]]:
        """All points of the run so far, before a resume too, by metric (all metrics, or `names`).

        Raises:
            mlflow.exceptions.MlflowException: the store cannot be read.
        """
        known = self._client.get_run(self.run_id).data.metrics
        return {
            name: [
                MetricPoint(name=name, value=m.value, step=m.step, t=m.timestamp / 1000)
                for m in self._client.get_metric_history(self.run_id, name)
            ]
            for name in (names or sorted(known))
            if name in known
        }

    def _flush_metrics(self) -> bool:
        from mlflow.entities import Metric

        while True:
            with self._lock:
                points = self._points.take(_METRICS_PER_BATCH)
            if not points:
                return True
            batch = [Metric(p.name, p.value, int(p.t * 1000), p.step) for p in points]
            if not self._attempt(partial(self._client.log_batch, self.run_id, metrics=batch)):
                with self._lock:
                    self._points.put_back(points)
                return False
            with self._lock:
                self._written += len(points)

    def _flush_tags(self) -> bool:
        from mlflow.entities import RunTag

        with self._lock:
            tags, self._tags = self._tags, {}
        items = [RunTag(key, value) for key, value in tags.items()]

        def write() -> None:
            for start in range(0, len(items), _PARAMS_PER_BATCH):
                self._client.log_batch(self.run_id, tags=items[start : start + _PARAMS_PER_BATCH])

        if not items or self._attempt(write):
            return True
        with self._lock:
            self._tags = tags | self._tags
        return False

    def _flush_files(self) -> bool:
        with self._lock:
            files = list(self._files)
            self._files.clear()
        failed = [item for item in files if not self._attempt(partial(self._write_file, *item))]
        with self._lock:
            self._files.extendleft(reversed([item for item in failed if os.path.exists(item[0])]))
        return not failed

    def _write_file(self, path: str, folder: str | None) -> None:
        if os.path.isdir(path):
            self._client.log_artifacts(self.run_id, path, folder)
        else:
            self._client.log_artifact(self.run_id, path, folder)

    def _attempt(self, write: Callable[[], object]) -> bool:
        """Run `write`; a failure of the store is counted and reported, not raised."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            write()
        except (MlflowException, SQLAlchemyError, OSError) as error:
            with self._lock:
                self._faults += 1
                self._first_fault = self._first_fault or _one_line(error)
            return False
        return True


def _open_run(config: LoggerConfig) -> tuple[MlflowClient, str]:
    """A client, and the id of the run that `config` names or that was made for it."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # MLflow writes a page of traceback for every failed write; `status()` says the same in one line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    try:
        if config.tracking_uri.startswith(_SQLITE):
            Path(config.tracking_uri.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        client = MlflowClient(tracking_uri=config.tracking_uri)
        if config.run_id:
            if client.get_run(config.run_id).info.status != "RUNNING":
                client.update_run(config.run_id, status="RUNNING")
            return client, config.run_id
        run = client.create_run(_experiment_id(client, config), run_name=config.run_name)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        what = f"no run {config.run_id} can be resumed" if config.run_id else "cannot be opened"
        raise ValueError(f"telemetry.tracking_uri={config.tracking_uri}: {what} ({_one_line(error)})") from error
    return client, run.info.run_id


def _absolute_uri(uri: str) -> str:
    """A relative SQLite path would mean another file in a process with another working directory."""
    return _SQLITE + os.path.abspath(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else uri


def _experiment_id(client: MlflowClient, config: LoggerConfig) -> str:
    """The experiment's id; of two processes that make it at once, one finds the other's."""
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(config.experiment)
    if known is not None:
        return known.experiment_id
    location = Path(config.artifact_root, config.experiment).absolute().as_uri() if config.artifact_root else None
    try:
        return client.create_experiment(config.experiment, artifact_location=location)
    except MlflowException:
        known = client.get_experiment_by_name(config.experiment)
        if known is None:
            raise
        return known.experiment_id


def _one_line(error: BaseException) -> str:
    """What went wrong, in one line of at most 300 characters: the data base's own words where it has some."""
    cause: BaseException | None = error
    while cause is not None:
        own = getattr(cause, "orig", None)  # SQLAlchemy keeps the driver's error there
        if own is not None:
            return f"{type(own).__name__}: {own}".splitlines()[0][:300]
        cause = cause.__cause__ or cause.__context__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
