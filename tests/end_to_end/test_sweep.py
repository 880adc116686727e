"""A sweep as its user runs it: two real cells, killed at a random moment, resumed, recorded in MLflow."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

ROOT = Path(__file__).parents[2]


def write(folder: Path) -> Path:
    """Two arms of ten steps, which read the episodes that are made first."""
    path = folder / "two.yaml"
    settings = {
        "name": "two",
        "base": str(ROOT / "configs" / "tiny.yaml"),
        "output": str(folder / "runs"),
        "set": {
            "episodes": "prepared:pool",
            "learner.steps": 10,
            "learner.checkpoint_steps": 5,
            "evaluation.seeds": 1,
            "evaluation.seeds_between": 0,
        },
        "arms": {
            "bound_4": {"set": {"replay.max_reuse": 4, "replay.samples_per_insert": 4}},
            "static": {"set": {"replay.mode": "static", "replay.capacity_pairs": 1500}},
        },
        "prepare": {"pool": {"pairs": 4000}},
    }
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def done(summary: Path) -> bool:
    return json.loads(summary.read_text())["status"] == "done"


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "embodichain", "sweep", *arguments], cwd=ROOT, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=(folder / "out.txt").open("a"), stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_killed_at_three_random_moments_is_resumed_to_its_report(tmp_path):
    sweep = tmp_path / "runs" / "two"
    process = start(tmp_path, str(write(tmp_path)))
    log = tmp_path / "out.txt"
    while "[0/1] started prepare-pool" not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.5)
    starts, finished = 1, dict[str, float]()
    for _ in range(3):
        time.sleep(random.uniform(0, 60))
        if process.poll() is not None:
            break  # it was faster
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        known = {path.parent.name: path.stat().st_mtime for path in sweep.glob("*/summary.json") if done(path)}
        assert {name: known[name] for name in finished} == finished  # not run again
        finished, starts = known, starts + 1
        process = start(tmp_path, "--resume", str(sweep))
    assert process.wait(timeout=1200) == 0, log.read_text()

    assert {name: (sweep / name / "summary.json").stat().st_mtime for name in finished} == finished
    report = (sweep / "report.md").read_text()
    assert f"2 of 2 cells finished, in {starts} start(s)" in report
    summaries = {name: json.loads((sweep / name / "summary.json").read_text()) for name in ("bound_4-s0", "static-s0")}
    for summary in summaries.values():
        assert summary["learner_steps"] == 10
        assert [reading["step"] for reading in summary["readings"]] == [5, 10]
        assert all(reading["error"] > 0 for reading in summary["readings"])
        spent = summary["core_seconds"]
        assert spent["learner"] > 0
        assert spent["archived"] > 0  # what the episodes had cost when they were made
    assert summaries["bound_4-s0"]["reuse"]["max"] <= 4
    check_mlflow(tmp_path / "runs", summaries)


def check_mlflow(runs: Path, summaries: dict[str, dict]) -> None:
    """One experiment; a parent with report, curve and a registered winner; a child per finished cell."""
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("two")
    assert experiment is not None
    recorded = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in recorded if run.data.tags.get("kind") == "sweep"]
    children = {run.info.run_name: run for run in recorded if run.data.params.get("kind") == "cell"}
    assert set(children) == set(summaries)
    for name, summary in summaries.items():
        child = children[name]
        assert child.info.run_id == summary["mlflow_run_id"]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert {"experience_throughput", "heldout_error", "success"} <= child.data.metrics.keys()
    assert "report.md" in {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert "heldout_error_by_throughput/static" in parent.data.metrics
    (version,) = client.search_model_versions("name='two'")
    assert version.run_id is not None
    assert version.run_id in {child.info.run_id for child in children.values()}
    assert "checkpoint" in {file.path for file in client.list_artifacts(version.run_id)}
