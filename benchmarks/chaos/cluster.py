"""A cluster of several nodes on this machine, for tests and faults: Ray's own test cluster, kept to itself."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray._private import state
from ray.cluster_utils import Cluster

from benchmarks.chaos.processes import descendants

HEALTH = {  # a dead node is known within seconds; one that starts on a busy machine is not taken for dead
    "health_check_initial_delay_ms": 10_000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 5,
}


@contextmanager
def cluster(nodes: Sequence[dict[str, Any]]) -> Iterator[Cluster]:
    """A head without CPUs of its own and a node per entry of `nodes` (`num_cpus`, `labels`); the caller is connected.

    Ray notes the newest cluster of a machine in its temporary folder, where other programs would find and join it;
    so this one has a folder of its own.
    """
    folder, before = tempfile.mkdtemp(prefix="c", dir="/tmp"), os.environ.get("RAY_TMPDIR")
    os.environ.update(RAY_TMPDIR=folder, RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    made = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "_system_config": HEALTH,
            "labels": {"role": "head"},
        },
    )
    try:
        for node in nodes:
            made.add_node(**node)
        ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        if before is None:
            del os.environ["RAY_TMPDIR"]
        else:
            os.environ["RAY_TMPDIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


def node_of(actor: Any) -> str:
    """Id of the node that an actor is on, or was last."""
    return str(state.actors(actor._actor_id.hex())["Address"]["NodeID"])


def kill_node(made: Cluster, node_id: str) -> None:
    """`SIGKILL` everything that runs on one node, as if its power was cut."""
    (node,) = [node for node in made.worker_nodes if node.node_id == node_id]
    raylet = node.all_processes["raylet"][0].process.pid
    for pid in (raylet, *descendants(raylet)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    made.remove_node(node, allow_graceful=False)
