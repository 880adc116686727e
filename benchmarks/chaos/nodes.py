"""A whole node killed, or a host cut off: what ran on it comes back on another one, and the stream goes on."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from benchmarks.chaos.cluster import cluster, kill_node, node_of
from benchmarks.chaos.line import Line, line_config
from benchmarks.chaos.outcome import Outcome, Tick
from embodichain.app.config import PlacementConfig

WORK = {"role": "work"}
NODE: dict[str, Any] = {"num_cpus": 2, "labels": WORK}
SIMULATORS = 2
ROOT = Path(__file__).parents[2]
HOSTS = (str(ROOT / "tests" / "chaos" / "netns.sh"), "run", sys.executable)
AUDITED = 8
BETWEEN_S = (1.0, 4.0)


@contextmanager
def line_on_nodes() -> Iterator[tuple[Cluster, Line]]:
    """Two nodes that share two simulators and two shards; ledgers lie where both see them."""
    config = replace(line_config(count=SIMULATORS, cpus=1.0), placement=PlacementConfig(simulators=WORK, learner=WORK))
    with tempfile.TemporaryDirectory() as folder, cluster([NODE, NODE]) as made, Line(config, Path(folder)) as line:
        yield made, line


def killed(times: int, tick: Tick) -> Outcome:
    """Everything on the node of a random shard dies at once; then another node joins.

    Recovered when that shard, and every simulator that was on the node, has delivered something new.
    """
    outcome, chance = Outcome(), random.Random(0)
    with line_on_nodes() as (made, line):
        line.until(lambda: len(line.arrived) == len(line.shards), "batch from every shard")
        for _ in range(times):
            pause = time.monotonic() + chance.uniform(*BETWEEN_S)
            line.until(lambda until=pause: time.monotonic() > until, "pause")  # type: ignore[misc]
            outcome.recovery_s.append(_kill_one(made, line, chance, outcome))
            made.add_node(**NODE)
            tick()
        outcome.lost["recipes quarantined"] = len(line.quarantine)
        outcome.broken += line.broken(AUDITED)
    return outcome


def _kill_one(made: Cluster, line: Line, chance: random.Random, outcome: Outcome) -> float:
    victim = node_of(line.shards[chance.randrange(len(line.shards))])
    shards = [index for index, shard in enumerate(line.shards) if node_of(shard) == victim]
    simulators = sum(node_of(actor) == victim for actor in line.pool.actors())
    outcome.lost["shards' contents"] += len(shards)
    outcome.lost["simulators"] += simulators
    died = line.pool.counts.faults["actor_died"]
    began, since = time.monotonic(), time.time()
    kill_node(made, victim)
    made_before = line.pool.counts.generated

    def whole() -> bool:
        back = all(line.arrived.get(shard, 0.0) > since for shard in shards)
        replaced = line.pool.counts.faults["actor_died"] >= died + simulators
        return back and replaced and line.pool.counts.generated > made_before and line.all_working()

    line.until(whole, "recovery from a dead node")
    return time.monotonic() - began


def cut_off(times: int, tick: Tick) -> Outcome:
    """The link of one of three hosts (network namespaces) goes down; see `benchmarks.chaos.hosts`. Needs root.

    Raises `RuntimeError` with the script's own words where that cannot be done.
    """
    outcome = Outcome()
    for _ in range(times):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(HOSTS, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-2000:])
        seen = json.loads(done.stdout.strip().splitlines()[-1])
        outcome.recovery_s.append(seen["recovery_s"])
        outcome.lost["simulators"] += seen["faults"].get("actor_died", 0)
        outcome.broken += seen["broken"]
        tick()
    return outcome
