"""kill -9 of the learner's worker: the run goes on from its last checkpoint and ends well."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def learner_workers(root_pid: int) -> list[int]:
    """Process ids of Ray Train workers below `root_pid`."""
    table = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in table.splitlines()[1:]]
    parents = {int(pid): int(ppid) for pid, ppid, _ in rows}

    def below(pid: int) -> bool:
        while pid in parents and pid != root_pid:
            pid = parents[pid]
        return pid == root_pid

    return [int(pid) for pid, _, args in rows if "RayTrainWorker" in args and below(int(pid))]


@pytest.mark.slow
def test_a_killed_learner_goes_on_from_its_last_checkpoint(tmp_path):
    run = tmp_path / "tiny"
    overrides = [f"output={tmp_path}", "learner.steps=300", "learner.checkpoint_minutes=0.03", "replay.max_reuse=60"]
    with (tmp_path / "out.txt").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "embodichain", "run", "configs/tiny.yaml", *overrides],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    stop, killed = time.monotonic() + 300, 0
    while time.monotonic() < stop and not killed:
        steps = [int(path.name.removeprefix("step_")) for path in run.glob("checkpoints/step_*")]
        if steps and max(steps) > 5:
            for pid in learner_workers(process.pid):
                os.kill(pid, signal.SIGKILL)
                killed = max(steps)
        time.sleep(0.2)
    assert killed, (tmp_path / "out.txt").read_text()
    process.wait(timeout=400)
    assert process.returncode == 0, (tmp_path / "out.txt").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["learner_steps"]) == ("done", 300)
    assert summary["reuse"]["max"] <= summary["reuse"]["bound"]
