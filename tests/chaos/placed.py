"""A whole run on a cluster of two labelled nodes; prints which kind of actor was on which, as JSON."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import ray
from ray._private import state

from benchmarks.chaos.cluster import cluster
from benchmarks.chaos.runs import SETTINGS, RunProcess

PLACEMENT = ("placement.simulators={role: sim}", "placement.evaluators={role: sim}", "placement.learner={role: learn}")
NODES = [{"num_cpus": 2, "labels": {"role": role}} for role in ("sim", "learn")]


def main() -> dict[str, list[str]]:
    """Kind of actor -> roles of the nodes that held one."""
    with tempfile.TemporaryDirectory() as folder, cluster(NODES) as made:
        os.environ["RAY_ADDRESS"] = made.address
        run = RunProcess(Path(folder), *SETTINGS, *PLACEMENT)
        try:
            run.until(lambda: run.step() > 0, "first checkpoint")
            roles = {node["NodeID"]: node["Labels"].get("role", "") for node in ray.nodes()}
            alive = [actor for actor in state.actors().values() if actor["State"] == "ALIVE"]
            run.stop()
        finally:
            run.kill()
    kinds = {actor["ActorClassName"] for actor in alive}
    return {
        kind: sorted({roles[a["Address"]["NodeID"]] for a in alive if a["ActorClassName"] == kind}) for kind in kinds
    }


if __name__ == "__main__":
    print(json.dumps(main()))
