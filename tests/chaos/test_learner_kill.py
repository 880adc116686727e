"""kill -9 of the learner's worker: the run goes on from its last checkpoint and ends well."""

import json
import os
import signal

import pytest

from benchmarks.chaos.processes import learner_workers
from benchmarks.chaos.runs import RunProcess


@pytest.mark.slow
def test_a_killed_learner_goes_on_from_its_last_checkpoint(tmp_path):
    run = RunProcess(tmp_path, "learner.steps=300", "learner.checkpoint_minutes=0.03", "replay.max_reuse=60")
    try:
        run.until(lambda: run.step() > 5 and bool(learner_workers(run.process.pid)), "checkpoint")
        for pid in learner_workers(run.process.pid):
            os.kill(pid, signal.SIGKILL)
        assert run.process.wait(timeout=400) == 0, run.said()
    finally:
        run.kill()
    summary = json.loads((run.run / "summary.json").read_text())
    assert (summary["status"], summary["learner_steps"]) == ("done", 300)
    assert summary["reuse"]["max"] <= summary["reuse"]["bound"]
