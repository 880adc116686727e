"""Several nodes: where processes go, a node that dies, and hosts of which one is cut off.

Each in a process of its own, since a process belongs to one Ray cluster.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NETNS = str(ROOT / "tests" / "chaos" / "netns.sh")


def last_line(*command: str) -> Any:
    """The JSON that a command prints last; it must end well."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
def test_simulators_go_to_their_nodes_and_shards_beside_the_learner():
    placed = last_line(sys.executable, "tests/chaos/placed.py")
    assert placed["SimActor"] == placed["EvaluatorActor"] == ["sim"]
    assert placed["ReplayShard"] == placed["RayTrainWorker"] == ["learn"]


@pytest.mark.slow
def test_what_ran_on_a_killed_node_comes_back_on_another():
    (row,) = last_line(
        sys.executable, "-m", "embodichain", "bench", "chaos", "--faults", "node", "--times", "1", "--json"
    )
    assert row["times"] == 1
    assert row["broken"] == "nothing"


@pytest.mark.slow
def test_hosts_that_are_left_go_on_when_one_is_cut_off():
    able = subprocess.run([NETNS, "check"], capture_output=True, text=True, check=False)
    if able.returncode == 77:
        pytest.skip(able.stderr.strip())
    seen = last_line(NETNS, "run", sys.executable)
    assert len(seen["hosts"]) == 3
    assert set(seen["transports"]) == {"tcp"}  # the learner's end is on a host without shards
    assert seen["cut_off"] != seen["shards_on"]
    assert seen["faults"] == {"actor_died": 1}
    assert set(seen["simulators_on"]) == {seen["shards_on"]}
    assert seen["broken"] == []
