"""`RunLogger` on a real SQLite store: batches, resume, and a store that fails and comes back."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from embodichain.telemetry.logger import LoggerConfig, RunLogger, flatten


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the module: making MLflow's tables takes seconds."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def config(store: Path) -> LoggerConfig:
    return LoggerConfig(
        tracking_uri=f"sqlite:///{store}/mlflow.db", artifact_root=str(store / "artifacts"), experiment="test"
    )


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def broken_store(store: Path) -> Iterator[sqlite3.Connection]:
    """While it is used, writing metrics fails: their table is gone. `restore` is a rename back."""
    with closing(sqlite3.connect(store / "mlflow.db")) as connection:
        connection.execute("ALTER TABLE metrics RENAME TO metrics_away")
        connection.commit()
        yield connection
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'metrics_away'").fetchone():
            restore(connection)


def restore(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE metrics_away RENAME TO metrics")
    connection.commit()


def test_metrics_wait_for_the_flush_and_come_back_whole(config: LoggerConfig) -> None:
    clock = Clock()
    logger = RunLogger(config, clock=clock)
    for step in range(700):  # 1 400 points: more than one MLflow batch
        logger.log_metrics({"learner/loss": 1.0 / (1 + step), "learner/grad_norm": math.nan}, step)
    assert not logger.due()
    assert logger.status()["pending"] == 1400
    clock.now += 2.0
    assert logger.due()
    assert logger.flush()
    history = logger.history()
    assert [p.step for p in history["learner/loss"]] == list(range(700))
    assert history["learner/loss"][3].value == pytest.approx(0.25)
    assert history["learner/loss"][3].t == 1_000_000.0
    assert math.isnan(history["learner/grad_norm"][0].value)
    assert logger.status() == {
        "run_id": logger.run_id,
        "written": 1400,
        "pending": 0,
        "dropped": 0,
        "faults": 0,
        "failing": False,
        "error": "",
    }


def test_params_tags_artifacts_and_status_reach_the_run(config: LoggerConfig, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    logger = RunLogger(config)
    nested = {"seed": 3, "learner": {f"key{i}": i for i in range(150)}, "cameras": ["front", "left"], "none": {}}
    assert logger.log_params({**nested, "long": "x" * 9000})
    logger.set_tags({"git_commit": "abc", "git_dirty": "false"})
    (tmp_path / "clip.mp4").write_bytes(b"video")
    logger.log_artifact(tmp_path / "clip.mp4", "videos")
    assert logger.finish("stopped")
    client = MlflowClient(tracking_uri=config.tracking_uri)
    run = client.get_run(logger.run_id)
    assert run.data.params["learner.key149"] == "149"
    assert run.data.params["cameras.1"] == "left"
    assert len(run.data.params["long"]) == 6000
    assert run.data.tags["git_commit"] == "abc"
    assert run.info.status == "KILLED"
    assert [f.path for f in client.list_artifacts(logger.run_id, "videos")] == ["videos/clip.mp4"]
    assert (Path(config.artifact_root) / "test" / logger.run_id / "artifacts" / "videos" / "clip.mp4").is_file()


def test_resume_goes_on_with_the_same_run(config: LoggerConfig) -> None:
    first = RunLogger(config)
    first.log_params({"seed": 1})
    first.log_metrics({"learner/loss": 2.0}, 1)
    first.finish("stopped")
    second = RunLogger(first.config)
    assert second.run_id == first.run_id
    assert second.log_params({"seed": 2, "extra": "new"})  # MLflow refuses a changed parameter: the first stays
    second.log_metrics({"learner/loss": 1.0}, 2)
    second.finish("done")
    assert [(p.step, p.value) for p in second.history(["learner/loss"])["learner/loss"]] == [(1, 2.0), (2, 1.0)]


def test_a_failing_store_is_reported_once_and_loses_nothing(
    config: LoggerConfig, broken_store: sqlite3.Connection
) -> None:
    logger = RunLogger(config)
    logger.log_metrics({"learner/loss": 1.0}, 1)
    logger.set_tags({"phase": "learning"})
    assert not logger.flush()
    logger.log_metrics({"learner/loss": 0.5}, 2)
    assert not logger.flush()
    status = logger.status()
    assert status["failing"] is True
    assert (status["faults"], status["written"], status["pending"]) == (2, 0, 2)
    assert "no such table" in status["error"]
    assert "\n" not in status["error"]
    restore(broken_store)
    assert logger.flush()
    assert [p.value for p in logger.history()["learner/loss"]] == [1.0, 0.5]
    assert logger.status()["failing"] is False
    assert logger.status()["faults"] == 2


def test_a_missing_artifact_does_not_hold_up_the_metrics(config: LoggerConfig, tmp_path: Path) -> None:
    logger = RunLogger(config)
    logger.log_artifact(tmp_path / "never.mp4")
    logger.log_metrics({"learner/loss": 1.0}, 1)
    assert not logger.flush()
    assert logger.status()["written"] == 1
    assert "never.mp4" in logger.status()["error"]
    assert logger.flush()  # a file that is gone is given up, not tried for ever


def test_user_errors_are_one_line(config: LoggerConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"telemetry\.tracking_uri=.*no run deadbeef can be resumed") as caught:
        RunLogger(LoggerConfig(tracking_uri=config.tracking_uri, run_id="deadbeef"))
    assert "\n" not in str(caught.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be opened"):
        RunLogger(LoggerConfig(tracking_uri=f"sqlite:///{tmp_path}/file/mlflow.db"))
    with pytest.raises(ValueError, match=r"telemetry\.flush_seconds=0"):
        LoggerConfig(flush_seconds=0)
    with pytest.raises(ValueError, match="status=fine"):
        RunLogger(config).finish("fine")


def test_flatten_keeps_order_and_empty_containers() -> None:
    assert list(flatten({"b": {"x": 1, "y": [True, None]}, "a": {}, "c": ()})) == [
        ("b.x", "1"),
        ("b.y.0", "True"),
        ("b.y.1", "None"),
        ("a", "{}"),
        ("c", "()"),
    ]
