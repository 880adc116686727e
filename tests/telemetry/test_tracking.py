"""Tracking stores: one line for those that do not answer; a real PostgreSQL where the machine has one."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from embodichain.app.cli import main
from embodichain.app.sweep.record import SweepRecord
from embodichain.telemetry.logger import LoggerConfig, RunLogger
from embodichain.telemetry.tracking import MlflowConfig, check_tracking


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_that_does_not_answer_is_one_line_within_seconds():
    began = time.monotonic()
    with pytest.raises(
        ValueError, match=r"mlflow\.tracking_uri=http://127\.0\.0\.1:\d+: .* nothing was started"
    ) as said:
        check_tracking(f"http://127.0.0.1:{free_port()}")
    assert "\n" not in str(said.value)
    assert time.monotonic() - began < 20


def test_a_file_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="does not answer"):
        check_tracking(f"sqlite:///{tmp_path}/file/mlflow.db")
    check_tracking(f"sqlite:///{tmp_path}/new/folder/mlflow.db")


def test_a_run_with_a_store_that_does_not_answer_creates_nothing(tmp_path, capsys):
    address = f"http://127.0.0.1:{free_port()}"
    assert main(["run", "configs/tiny.yaml", f"output={tmp_path}/runs", f"mlflow.tracking_uri={address}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_the_store_is_the_settings_then_the_environments_then_a_file(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    default = MlflowConfig()
    assert default.uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert default.artifact_root(tmp_path) == f"{tmp_path}/mlflow-artifacts"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://db/mlflow")
    assert default.uri(tmp_path) == "postgresql://db/mlflow"
    assert default.artifact_root(tmp_path) == f"{tmp_path}/mlflow-artifacts"  # MLflow's own is the working directory
    server = MlflowConfig(tracking_uri="http://server:5000")
    assert server.uri(tmp_path) == "http://server:5000"
    assert server.artifact_root(tmp_path) == ""


@pytest.fixture
def postgres(tmp_path_factory):
    """A data base server of this test's own, on a free port of the loopback address."""
    initdb = shutil.which("initdb") or next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    if initdb is None:
        pytest.skip("no PostgreSQL server here (apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="no driver: pip install -c constraints.txt psycopg[binary]")
    as_user: list[str] = []
    folder = tmp_path_factory.mktemp("postgres")
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        if subprocess.run(["id", "postgres"], capture_output=True, check=False).returncode:
            pytest.skip("root, and no user `postgres` to run the server as")
        as_user = ["runuser", "-u", "postgres", "--"]
        for each in (folder, *folder.parents[:2]):
            each.chmod(0o755)
        shutil.chown(folder, "postgres")
    server, port = Path(initdb).parent, free_port()
    subprocess.run(
        [*as_user, initdb, "-D", str(folder / "data"), "-U", "mlflow", "--auth=trust"], check=True, capture_output=True
    )
    running = subprocess.Popen(
        [*as_user, str(server / "postgres"), "-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(port), "-k", ""],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    uri = f"postgresql://mlflow@127.0.0.1:{port}/postgres"
    try:
        stop = time.monotonic() + 60
        while True:
            try:
                check_tracking(uri)
                break
            except ValueError:
                assert time.monotonic() < stop
                time.sleep(0.2)
        yield uri
    finally:
        running.terminate()
        running.wait(timeout=60)


@pytest.mark.slow
def test_a_run_is_recorded_in_postgresql(postgres, tmp_path):
    config = LoggerConfig(tracking_uri=postgres, experiment="sweep", artifact_root=str(tmp_path), run_name="cell")
    logger = RunLogger(config)
    assert logger.log_params({"replay": {"max_reuse": 4}})
    logger.log_metrics({"heldout_error": 0.5}, step=3)
    assert logger.finish("done")
    again = RunLogger(LoggerConfig(tracking_uri=postgres, experiment="sweep", run_id=logger.run_id))
    assert [(point.value, point.step) for point in again.history()["heldout_error"]] == [(0.5, 3)]


@pytest.mark.slow
def test_a_sweep_is_recorded_in_postgresql(postgres, tmp_path):
    """Parent and child, the curve, and files beside the output, not in the working directory."""
    base = MlflowConfig(tracking_uri=postgres)
    parent = SweepRecord(base, str(tmp_path), "sweep", "", {"purpose": "a test"})
    config = parent.child(base, {"arm": "stream"})
    assert (config.parent, config.uri(tmp_path)) == (parent.run_id, postgres)
    assert config.artifact_root(tmp_path) == f"{tmp_path}/mlflow-artifacts"
    summary = {"experience_throughput": 7.6, "heldout_error": {"last": 0.4}, "success": [], "core_seconds": {}}
    other = {**summary, "experience_throughput": 8.6, "heldout_error": {"last": 0.6}}  # of the same level, another seed
    parent.curve([("stream", "E=8", summary), ("stream", "E=8", other)])
    parent.curve([("spatial+visual", "E=8", summary)])  # an arm may be called like a domain
    report = tmp_path / "report.md"
    report.write_text("# a report")
    parent.attach([(report, None)])
    assert parent.finish("done")
    assert list((tmp_path / "mlflow-artifacts").rglob("report.md"))
    again = RunLogger(LoggerConfig(tracking_uri=postgres, experiment="sweep", run_id=parent.run_id))
    assert [(p.value, p.step) for p in again.history()["heldout_error_by_throughput/stream"]] == [(0.5, 8)]
