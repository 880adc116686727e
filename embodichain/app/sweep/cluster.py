"""Cells on a Ray cluster: Ray's scheduler finds each a place.

Two ways, by the sweep's `cluster`. `own`: a cell is one Ray task as large as all of its processes; where it lands it
starts Ray of its own, so that no two cells can wait for each other's parts. `join`: the cell's driver runs here and its
processes are spread over the cluster as its `placement` says.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import ray

from embodichain.app.settings import ConfigError
from embodichain.app.sweep.config import SweepConfig
from embodichain.app.sweep.process import Attempt, Job, LocalRunner, Outcome, ProcessAttempt

MANY = 10_000  # cells waiting at Ray; it starts those that fit


def run_here(job: Job) -> Outcome:
    """In a Ray task: one cell as a process of this node, with Ray of its own.

    A cancelled task is interrupted here and passes that on.
    """
    import embodichain

    root = Path(embodichain.__file__).parents[1]
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a") as log:
        log.write(f"on node {ray.get_runtime_context().get_node_id()}\n")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    attempt = ProcessAttempt(job, {**kept, "PYTHONPATH": str(root), "RAY_AUTH_MODE": "disabled"})
    try:
        while (outcome := attempt.poll()) is None:
            time.sleep(0.2)
    except BaseException:
        attempt.interrupt()
        until = time.monotonic() + 60
        while attempt.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        if attempt.poll() is None:
            attempt.kill()
        raise
    return outcome


class TaskAttempt:
    """A cell as a Ray task."""

    def __init__(self, job: Job) -> None:
        task: Any = ray.remote(run_here)
        placed = task.options(num_cpus=job.cpus, num_gpus=job.gpus, max_retries=0, name=job.name)
        self._ref = placed.remote(job)

    def poll(self) -> Outcome | None:
        """See `Attempt`."""
        if not ray.wait([self._ref], timeout=0)[0]:
            return None
        try:
            return ray.get(self._ref)
        except (ray.exceptions.TaskCancelledError, KeyboardInterrupt):
            return Outcome(reason="interrupted")
        except ray.exceptions.RayTaskError as error:
            return Outcome(reason=str(error.cause).splitlines()[0])
        except ray.exceptions.RayError as error:  # its node or its worker is gone
            return Outcome(reason=str(error).strip().splitlines()[0], lost=True)

    def interrupt(self) -> None:
        """See `Attempt`."""
        ray.cancel(self._ref, force=False)

    def kill(self) -> None:
        """See `Attempt`."""
        ray.cancel(self._ref, force=True)


class ClusterRunner:
    """Cells as Ray tasks, each on one node; Ray lets those wait for which there is no room.

    All of them are handed over at once, so that a cluster which grows on demand sees the demand.
    """

    def __init__(self, slots: int | None, job: Job) -> None:
        self.slots = slots or MANY
        room = sum(int((node["Resources"].get("CPU", 0.0) + 1e-6) // job.cpus) for node in ray.nodes() if node["Alive"])
        self.width = max(1, min(self.slots, room))

    def start(self, job: Job) -> Attempt:
        """Hand the cell to Ray."""
        return TaskAttempt(job)


def connect() -> None:
    """Join the cluster at `RAY_ADDRESS`. Raises `ConfigError` in one line if nothing answers there."""
    import logging

    address = os.environ["RAY_ADDRESS"]
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    previous = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"RAY_ADDRESS={address}: no cluster answers there ({line}); nothing was started") from error
    finally:
        signal.signal(signal.SIGTERM, previous)


def check_fits(job: Job) -> None:
    """Some node must be large enough for a cell. Raises `ConfigError` naming both."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(n.get("CPU", 0) + 1e-6 >= job.cpus and n.get("GPU", 0) + 1e-6 >= job.gpus for n in nodes):
        most = max((n.get("CPU", 0.0) for n in nodes), default=0.0)
        raise ConfigError(
            f"{job.name}: needs {job.cpus:g} CPU and {job.gpus:g} GPU on one node, the largest has {most:g} CPU; "
            "expected smaller cells, larger nodes, cluster=join, which spreads a cell over nodes, or grows=true if the "
            "cluster starts nodes on demand"
        )


def make_runner(config: SweepConfig, largest: Job) -> LocalRunner | ClusterRunner:
    """Where cells run: on this machine, or on the cluster that `RAY_ADDRESS` names. Raises `ConfigError`."""
    if not os.environ.get("RAY_ADDRESS"):
        return LocalRunner(config.parallel or 1)
    connect()
    if config.cluster == "join":
        return LocalRunner(config.parallel or 1)
    if not config.grows:
        check_fits(largest)
    return ClusterRunner(config.parallel, largest)


def check_output(output: str) -> None:
    """Results must not go where Ray deletes them after the job. Raises `ConfigError`."""
    folder = Path(output).absolute()
    if "runtime_resources" in folder.parts and os.environ.get("RAY_ADDRESS"):
        raise ConfigError(
            f"output={output}: lies in the job's working directory, which Ray deletes afterwards; expected an absolute "
            "path that every node sees"
        )
