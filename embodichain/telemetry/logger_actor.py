"""The logger as a Ray actor: every process of a run reports to it, none ever waits for it.

`start_logger` makes the MLflow run and the actor, and hands on a `LoggerHandle`, which can be sent to any
actor or task. A killed logger is restarted by Ray and goes on with the same MLflow run; what it had not
written yet (at most about `flush_seconds` of metrics) is lost. Ray is imported when a logger is started.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from embodichain.telemetry.logger import LoggerConfig, RunLogger


class LoggerActor:
    """A `RunLogger` and the thread that flushes it, so that a slow store never delays a caller's message."""

    def __init__(self, config: LoggerConfig) -> None:
        """`config.run_id` must be set, so that a restarted actor goes on with the same run.

        Raises:
            ValueError: no run id, or the run cannot be opened.
        """
        if not config.run_id:
            raise ValueError("telemetry.run_id is empty: expected a run made before the actor starts")
        self._logger = RunLogger(config)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._flush_until_stopped, name="mlflow-flush", daemon=True)
        self._thread.start()

    def log_metrics(self, values: Mapping[str, float], step: int, t: float) -> None:
        """Queue metrics."""
        self._logger.log_metrics(values, step, t)

    def log_artifact(self, path: str, folder: str | None) -> None:
        """Queue a file that this node can read."""
        self._logger.log_artifact(path, folder)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Queue tags."""
        self._logger.set_tags(tags)

    def status(self) -> dict[str, Any]:
        """As `RunLogger.status`, with this process's `pid`."""
        return {**self._logger.status(), "pid": os.getpid()}

    def finish(self, status: str) -> dict[str, Any]:
        """Write everything that is left, close the run, and return the final status."""
        self._logger.finish(status)
        self._stop.set()
        self._thread.join()
        return self.status()

    def _flush_until_stopped(self) -> None:
        while not self._stop.wait(self._logger.config.flush_seconds):
            self._logger.flush()


class LoggerHandle:
    """A caller's end of the logger. Its `log_*` methods send and return; no reply is ever awaited.

    Attributes:
        run_id: the MLflow run.
    """

    def __init__(self, actor: Any, run_id: str) -> None:
        """`actor`: handle of a `LoggerActor`."""
        self._actor = actor
        self.run_id = run_id

    def log_metrics(self, values: Mapping[str, float], step: int, t: float | None = None) -> None:
        """Send metrics of one learner step, stamped with the caller's clock unless `t` (s) is given."""
        self._actor.log_metrics.remote(dict(values), step, time.time() if t is None else t)

    def log_artifact(self, path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Send the path of a finished file or folder; the logger's node must be able to read it."""
        self._actor.log_artifact.remote(os.path.abspath(path), folder)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Send tags."""
        self._actor.set_tags.remote(dict(tags))

    def status(self, timeout: float = 5.0) -> dict[str, Any]:
        """The logger's status. Where it gives none in `timeout` seconds: `failing` and `error` alone."""
        return self._ask(self._actor.status.remote(), timeout)

    def finish(self, status: str, timeout: float = 60.0) -> dict[str, Any]:
        """Write what is left, close the run as `done`, `stopped` or `failed`, end the actor; its last status.

        Raises:
            ValueError: another status.
        """
        import ray

        answer = self._ask(self._actor.finish.remote(status), timeout)
        ray.kill(self._actor)
        return answer

    @staticmethod
    def _ask(reference: Any, timeout: float) -> dict[str, Any]:
        import ray
        from ray.exceptions import GetTimeoutError, RayActorError

        try:
            return ray.get(reference, timeout=timeout)
        except GetTimeoutError:
            return {"failing": True, "error": f"the logger gave no answer in {timeout:g} s"}
        except RayActorError as error:
            return {"failing": True, "error": str(error).strip().splitlines()[0]}


def start_logger(
    config: LoggerConfig,
    *,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    num_cpus: float = 0.0,
) -> LoggerHandle:
    """Make (or reopen) the MLflow run and start its one logger on this node. Ray must be initialised.

    Args:
        config: where to record; with `run_id` set, that run is gone on with.
        params: the resolved configuration, nested; written once, before this returns.
        tags: for example the git commit.
        num_cpus: Ray CPUs that the actor reserves.

    Raises:
        ValueError: the tracking store cannot be opened or written: found at launch, not an hour later.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    opened = RunLogger(config)
    opened.set_tags(tags)
    if not (opened.log_params(params) and opened.flush()):
        raise ValueError(
            f"telemetry.tracking_uri={config.tracking_uri}: cannot be written ({opened.status()['error']})"
        )
    # Soft: a logger whose node died may come back elsewhere if the store can be reached from there.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = (
        ray.remote(LoggerActor)
        .options(num_cpus=num_cpus, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
        .remote(opened.config)
    )
    return LoggerHandle(actor, opened.run_id)
