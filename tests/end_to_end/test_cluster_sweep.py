"""A sweep through the real job server of a cluster of two nodes on this machine."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def two_nodes(log: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The job server's address and the environment of its clients. Ends what it started, and nothing else."""
    port, dashboard = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "300",  # on a busy machine
            "OMP_NUM_THREADS": "1",
        }
        head = ["--head", f"--port={port}", f"--dashboard-port={dashboard}"]
        nodes: list[subprocess.Popen[bytes]] = []
        try:
            for arguments in (head, [f"--address={own_address()}:{port}"]):
                # A port of its own for the agent that starts jobs, and a folder of its own: two nodes that unpack the
                # job's working directory in one place remove it from under each other.
                agent = free_port()
                own = Path(folder) / str(len(nodes))
                apart = [f"--dashboard-agent-listen-port={agent}", f"--temp-dir={own}", "--num-cpus=1", "--block"]
                with log.open("a") as out:
                    command = [str(BIN / "ray"), "start", *arguments, *apart]
                    nodes.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
                wait_for_port(own_address(), agent, nodes[-1], log)
            yield f"http://127.0.0.1:{dashboard}", environment
        finally:
            for node in reversed(nodes):
                node.terminate()
            for node in nodes:
                node.wait(timeout=60)


def own_address() -> str:
    """Of this machine, as Ray finds it: two nodes cannot both be at 127.0.0.1."""
    return ray.util.get_node_ip_address()


def wait_for_port(host: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    stop = time.monotonic() + 180
    while time.monotonic() < stop and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        time.sleep(0.5)
    pytest.fail(f"Ray did not start: {log.read_text()[-2000:]}")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_is_submitted_as_a_job_and_its_cells_run_on_both_nodes(tmp_path):
    settings = {
        "name": "two",
        "base": str(ROOT / "configs" / "tiny.yaml"),
        "output": str(tmp_path / "runs"),
        "set": {"learner.steps": 5, "evaluation.seeds": 1, "evaluation.seeds_between": 0},
        "grid": {"replay.max_reuse": [2, 4]},
    }
    sweep = tmp_path / "two.yaml"
    sweep.write_text(yaml.safe_dump(settings))
    with two_nodes(tmp_path / "ray.txt") as (address, environment):
        done = subprocess.run(
            [str(BIN / "ray"), "job", "submit", f"--address={address}", "--working-dir=.",
             "--runtime-env=configs/cluster/runtime_env.yaml", "--",
             sys.executable, "-m", "embodichain", "sweep", str(sweep)],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "2 of 2 cells finished" in (tmp_path / "runs" / "two" / "report.md").read_text()
    for name in ("max_reuse2-s0", "max_reuse4-s0"):
        summary = json.loads((tmp_path / "runs" / "two" / name / "summary.json").read_text())
        assert (summary["status"], summary["learner_steps"]) == ("done", 5)
