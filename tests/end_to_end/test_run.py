"""The main job as its user runs it: to the end, through Ctrl-C and resume, through a killed driver."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from learner import load_state

ROOT = Path(__file__).parents[2]
TINY = ROOT / "configs" / "tiny.yaml"


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "embodichain", "run", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=(folder / "out.txt").open("a"), stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], folder: Path) -> str:
    process.wait(timeout=400)
    return (folder / "out.txt").read_text()


def wait_for_step(run: Path, process: subprocess.Popen[str], step: int) -> None:
    """Until a checkpoint of at least `step` lies in the run's folder."""
    stop = time.monotonic() + 300
    while time.monotonic() < stop and process.poll() is None:
        if any(int(path.name.removeprefix("step_")) >= step for path in run.glob("checkpoints/step_*")):
            return
        time.sleep(0.2)
    pytest.fail(f"no checkpoint of step {step}: {(run.parent / 'out.txt').read_text()[-2000:]}")


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_run_ends_with_everything_it_promises(tmp_path):
    process = start(tmp_path, str(TINY), f"output={tmp_path}")
    said = finish(process, tmp_path)
    assert process.returncode == 0, said
    run = tmp_path / "tiny"
    summary = read(run / "summary.json")
    assert summary["status"] == "done"
    assert summary["learner_steps"] == 40
    assert summary["episodes"]["accepted"] >= 5
    assert summary["episodes"]["replay_checked"] >= 1
    assert "replay_mismatch" not in summary["episodes"]["rejected"]
    assert 0 < summary["reuse"]["max"] <= summary["reuse"]["bound"] == 8
    assert 0 < summary["experience_throughput"] <= summary["pair_uses"] / 40
    assert {"first", "last", "input_blind"} <= summary["heldout_error"].keys()
    (row,) = summary["success"]
    assert (row["task"], row["n"]) == ("pick_place", 2)
    assert 0 <= row["low"] <= row["rate"] <= row["high"] <= 1
    assert "make dashboard" in said
    assert (run / "report.md").exists()
    assert list((run / "figures").glob("*.png"))
    logged = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").get_run(summary["mlflow_run_id"])
    assert logged.info.status == "FINISHED"
    assert {"learner/loss_action", "replay/reuse_max", "heldout/action_error"} <= logged.data.metrics.keys()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_ranks_with_two_micro_batches_each_run_to_the_end_and_one_goes_on(tmp_path, parallel):
    settings = ["learner.workers=2", "learner.cpus=0.25", f"learner.parallel={parallel}", "learner.train.accumulate=2"]
    said = finish(start(tmp_path, str(TINY), f"output={tmp_path}", *settings), tmp_path)
    assert (tmp_path / "tiny" / "summary.json").exists(), said
    summary = read(tmp_path / "tiny" / "summary.json")
    assert (summary["status"], summary["learner_steps"]) == ("done", 40)
    state, info = load_state(tmp_path / "tiny" / "checkpoints" / "step_40")
    assert (state.updates + state.skipped, info.train.accumulate) == (40, 2)


def test_a_static_run_makes_its_set_first_and_then_learns_from_it_alone(tmp_path):
    settings = ["replay.mode=static", "replay.capacity_pairs=1600", "replay.min_size_pairs=400", "learner.steps=60"]
    process = start(tmp_path, str(TINY), f"output={tmp_path}", *settings)
    said = finish(process, tmp_path)
    assert process.returncode == 0, said
    summary = read(tmp_path / "tiny" / "summary.json")
    assert (summary["status"], summary["learner_steps"]) == ("done", 60)
    shards = summary["replay"]
    assert [shard["complete_sets"] for shard in shards] == [1, 1]
    held = sum(shard["pairs_held"] for shard in shards)
    assert 800 < held <= 1600
    # nothing came in later and nothing left: every pair there ever was is in the set, used again and again
    assert sum(shard["pairs_inserted"] for shard in shards) == held
    assert sum(shard["evicted_pairs"] + shard["exhausted_pairs"] for shard in shards) == 0
    assert summary["reuse"]["bound"] is None
    assert summary["reuse"]["max"] > 8  # which a stream's bound of 8 would not allow
    assert sum(shard["unique_pairs"] for shard in shards) <= held
    assert said.index("generating the fixed set") < said.index("learning")
    assert summary["actor_idle_fraction"] < 1.0


def test_ctrl_c_checkpoints_and_resume_goes_on_with_counters_intact(tmp_path):
    process = start(
        tmp_path, str(TINY), f"output={tmp_path}", "learner.steps=100000", "learner.checkpoint_minutes=0.05"
    )
    run = tmp_path / "tiny"
    wait_for_step(run, process, 5)
    process.send_signal(signal.SIGINT)
    said = finish(process, tmp_path)
    assert process.returncode == 0, said
    assert "embodichain run --resume" in said
    stopped = read(run / "summary.json")
    assert stopped["status"] == "stopped"
    # the budget of the stopped run is far away; the resumed one gets a reachable one
    config = (run / "config.yaml").read_text()
    steps = stopped["learner_steps"] + 10
    (run / "config.yaml").write_text(config.replace("steps: 100000", f"steps: {steps}"))
    process = start(tmp_path, "--resume", str(run))
    said = finish(process, tmp_path)
    assert process.returncode == 0, said
    resumed = read(run / "summary.json")
    assert (resumed["status"], resumed["starts"], resumed["learner_steps"]) == ("done", 2, steps)
    assert resumed["episodes"]["generated"] >= stopped["episodes"]["generated"]
    assert resumed["pair_uses"] > stopped["pair_uses"]
    assert resumed["reuse"]["max"] <= resumed["reuse"]["bound"]
    assert resumed["mlflow_run_id"] == stopped["mlflow_run_id"]


@pytest.mark.slow
def test_a_killed_driver_can_be_resumed_and_the_bound_holds(tmp_path):
    process = start(
        tmp_path, str(TINY), f"output={tmp_path}", "learner.steps=100000", "learner.checkpoint_minutes=0.05"
    )
    run = tmp_path / "tiny"
    wait_for_step(run, process, 5)
    process.kill()
    process.wait()
    step = max(int(path.name.removeprefix("step_")) for path in run.glob("checkpoints/step_*"))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("steps: 100000", f"steps: {step + 10}"))
    process = start(tmp_path, "--resume", str(run))
    said = finish(process, tmp_path)
    assert process.returncode == 0, said
    summary = read(run / "summary.json")
    assert (summary["status"], summary["learner_steps"]) == ("done", step + 10)
    assert summary["reuse"]["max"] <= summary["reuse"]["bound"]


def test_a_finished_run_is_not_resumed(tmp_path):
    run = tmp_path / "tiny"
    run.mkdir()
    process = start(tmp_path, "--resume", str(run))
    said = finish(process, tmp_path)
    assert process.returncode == 2
    assert said.count("\n") == 1
    assert "no run there" in said
