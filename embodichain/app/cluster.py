"""Ray: started in-process for one machine, or joined where `RAY_ADDRESS` points."""

from __future__ import annotations

import logging
import os

import ray

from embodichain.app import placement
from embodichain.app.config import ConfigError, RunConfig


def connect(config: RunConfig) -> None:
    """Start or join Ray and check that the run's actors can ever be placed.

    Raises:
        ConfigError: the cluster is too small, naming what is missing.
        RuntimeError: Ray did not start.
    """
    # Sockets on loopback unless a cluster is joined; small fractional workers must not each take all cores.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Waiting threads sleep: spinning ones would take the cores from the simulators beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        _init(config)
    except Exception as error:  # what Ray raises when its processes are slow to start is a bare one
        if type(error) is not Exception:
            raise
        raise RuntimeError(f"Ray did not start: {error}") from error
    try:
        placement.check(config)
    except ConfigError:
        ray.shutdown()
        raise


def _init(config: RunConfig) -> None:
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
        return
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray.init(
        address="local",  # never by accident another run's
        num_cpus=None if config.ray.cpus is None else max(1, int(config.ray.cpus)),
        object_store_memory=config.ray.object_store_mb * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
    )
