"""The logger actor under Ray: it is killed, comes back with the same MLflow run, and nobody waits for it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from embodichain.telemetry.logger import LoggerConfig, RunLogger
from embodichain.telemetry.logger_actor import LoggerActor, LoggerHandle, start_logger


def wait_for(handle: LoggerHandle, condition: str, value: object, seconds: float = 30.0) -> dict:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = handle.status()
        if status.get(condition) == value:
            return status
        time.sleep(0.1)
    return pytest.fail(f"{condition} never became {value!r}: {handle.status()}")


@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_logger_goes_on_with_the_same_run(tmp_path: Path) -> None:
    config = LoggerConfig(
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", artifact_root=str(tmp_path / "artifacts"), flush_seconds=0.2
    )
    handle = start_logger(config, params={"seed": 1}, tags={"git_commit": "abc"})
    begin = time.monotonic()
    for step in range(200):
        handle.log_metrics({"learner/loss": float(step)}, step)
    assert time.monotonic() - begin < 2.0  # no call waits for the store
    before = wait_for(handle, "written", 200)

    os.kill(before["pid"], signal.SIGKILL)
    handle.log_metrics({"learner/loss": 200.0}, 200)
    after = wait_for(handle, "written", 1)
    assert after["pid"] != before["pid"]

    (tmp_path / "report.md").write_text("# report")
    handle.log_artifact(tmp_path / "report.md")
    final = handle.finish("done")
    assert (final["run_id"], final["pending"], final["faults"]) == (handle.run_id, 0, 0)

    reopened = RunLogger(LoggerConfig(tracking_uri=config.tracking_uri, run_id=handle.run_id))
    assert [p.step for p in reopened.history()["learner/loss"]] == list(range(201))
    assert handle.status(timeout=5.0)["failing"] is True  # ended: says so instead of raising


def test_an_unwritable_store_is_found_at_launch(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = LoggerConfig(tracking_uri=f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(ValueError, match=r"telemetry\.tracking_uri=.*cannot be opened"):
        start_logger(config, params={}, tags={})


def test_the_actor_refuses_to_start_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"telemetry\.run_id is empty"):
        LoggerActor(LoggerConfig(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"))
