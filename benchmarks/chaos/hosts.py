"""The stream over several hosts, one of which is cut off; what `tests/chaos/netns.sh` starts on the first of them.

Joins the cluster at `RAY_ADDRESS`: two nodes with the label `role=sim`, of which one has `store=yes` and holds the
shards. The learner's end is here, on a host without shards.

    python -m benchmarks.chaos.hosts FOLDER

Writes `FOLDER/cut` when it wants the host named in that file to be cut off, and prints a JSON object at the end.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path

import ray

from benchmarks.chaos.cluster import node_of
from benchmarks.chaos.line import Line, line_config
from embodichain.app.config import PlacementConfig

AUDITED = 4


def main(folder: Path) -> dict[str, object]:
    """Produce and sample on all hosts, have one cut off, and go on; what was seen."""
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    address = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    place = PlacementConfig(simulators={"role": "sim"}, shards={"store": "yes"})
    with Line(replace(line_config(count=2, cpus=1.0), placement=place), folder) as line:
        line.until(lambda: len(line.arrived) == len(line.shards), "batch from every shard")
        line.until(line.all_working, "work of both simulators")
        held = address[node_of(line.shards[0])]
        lost = next(at for actor in line.pool.actors() if (at := address[node_of(actor)]) != held)
        (folder / "cut.new").write_text(str(lost))
        (folder / "cut.new").replace(folder / "cut")
        line.until(lambda: not (folder / "cut").exists(), "cut")
        began, since, made = time.monotonic(), time.time(), line.pool.counts.generated

        def whole() -> bool:
            fresh = all(entered > since for entered in line.arrived.values())
            return fresh and line.pool.counts.faults["actor_died"] > 0 and line.all_working()

        line.until(whole, "recovery from a host that is cut off")
        recovery_s = time.monotonic() - began
        line.until(lambda: line.pool.counts.generated >= made + 5, "five more recipes")
        seen = {
            "hosts": sorted(set(address.values())),
            "shards_on": held,
            "cut_off": lost,
            "faults": dict(line.pool.counts.faults),
            "simulators_on": sorted(address[node_of(actor)] for actor in line.pool.actors()),
            "transports": line.client.transports,
            "windows": line.witness.counts.windows,
            "recovery_s": recovery_s,
            "broken": line.broken(AUDITED),
        }
    ray.shutdown()
    return seen


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
