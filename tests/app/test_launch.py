"""What happens around a run: no renderer, a broken resume, the command line's help."""

import json
import shutil
from types import SimpleNamespace

import pytest
from rich.console import Console

from embodichain.app import launch
from embodichain.app.cli import main, make_parser
from embodichain.app.config import ConfigError, RunConfig, load_config
from embodichain.app.folder import RunFolder, RunState
from embodichain.app.progress import Progress


@pytest.fixture
def no_renderer(monkeypatch):
    monkeypatch.setattr("embodichain.doctor.renderer_available", lambda: (False, "no Vulkan device"))


def config(tmp_path, *overrides: str) -> RunConfig:
    return load_config("configs/tiny.yaml", [f"output={tmp_path}", *overrides])


def test_without_a_renderer_a_state_run_says_so_and_goes_on(no_renderer, tmp_path, capsys):
    assert launch._renderer(config(tmp_path)) is False
    assert "No renderer" in capsys.readouterr().err


def test_without_a_renderer_an_image_run_is_refused_and_nothing_is_created(no_renderer, tmp_path):
    with pytest.raises(ConfigError, match=r"encoder\.name=dinov3 needs a renderer"):
        launch.launch(config(tmp_path, "encoder.name=dinov3", "window.phase_step=8"))
    assert list(tmp_path.iterdir()) == []


def test_image_weights_that_are_not_there_are_refused_and_nothing_is_created(tmp_path, monkeypatch):
    monkeypatch.setattr("embodichain.doctor.renderer_available", lambda: (True, ""))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = ["encoder.name=dinov3", "window.phase_step=8", "encoder.weights=/no/such/folder"]
    with pytest.raises(ConfigError, match=r"encoder\.weights=/no/such/folder: no such folder"):
        launch.launch(config(tmp_path, *words))
    assert list(tmp_path.iterdir()) == []


def test_more_components_than_the_encoder_has_channels_are_refused_and_nothing_is_created(tmp_path, monkeypatch):
    monkeypatch.setattr("embodichain.doctor.renderer_available", lambda: (True, ""))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    images = ["encoder.name=dinov3", "window.phase_step=8", "encoder.weights=random:tiny"]
    for words, channels in (([], 53), (images, 64)):
        with pytest.raises(ConfigError, match=rf"^learner\.network\.components=65: expected at most {channels}"):
            launch.launch(config(tmp_path, "learner.network.components=65", *words))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cameras", ["[front,behind]", "[top,top]", "[]"])
def test_cameras_that_do_not_exist_or_come_twice_are_refused(cameras, tmp_path):
    with pytest.raises(ConfigError, match=r"encoder\.cameras=.*expected some of front, left"):
        config(tmp_path, f"encoder.cameras={cameras}")


@pytest.mark.parametrize("broken", ["failing", "gone"])
def test_a_run_has_its_report_whatever_mlflow_does(tmp_path, monkeypatch, broken):
    """The logger could not write, or the store cannot be opened once more."""
    here = config(tmp_path)
    folder, state = RunFolder.create(here), RunState()
    folder.summary.write_text(json.dumps({"learner_steps": 1, "name": "tiny"}))
    console = Console(record=True, width=200)
    progress = Progress(here, folder, state, console)
    last = {"failing": broken == "failing", "error": "disk full"}
    monkeypatch.setattr(progress, "_logger", SimpleNamespace(finish=lambda status: last))

    def refuse(_: object) -> None:
        raise ValueError("no store there")

    monkeypatch.setattr("embodichain.app.progress.RunLogger", refuse)
    progress.finish("done")
    assert folder.report.exists()
    expected = "disk full" if broken == "failing" else "no store there"
    assert f"MLflow is incomplete: {expected}" in console.export_text()


def test_a_storage_that_holds_another_run_of_that_name_is_refused(tmp_path):
    """It would go on from that run's checkpoints."""
    here = config(tmp_path, f"storage={tmp_path / 'shared'}")
    folder = RunFolder.create(here)
    assert folder.checkpoints.local is not None
    (folder.checkpoints.local / "step_7").mkdir()
    shutil.rmtree(folder.path)
    with pytest.raises(ConfigError, match="holds checkpoints or snapshots of another run there"):
        RunFolder.create(here)
    assert not folder.path.exists()


def test_a_taken_name_gets_a_number(tmp_path):
    names = [RunFolder.create(config(tmp_path)).path.name for _ in range(3)]
    assert names == ["tiny", "tiny-2", "tiny-3"]


def test_the_state_of_a_run_reads_back_equal(tmp_path):
    folder = RunFolder.create(config(tmp_path))
    state = RunState(recipes_drawn=7, lengths={"pick_place": {2_000_000: 70}})
    state.counts.rejected["no_success"] += 2
    state.counts.recovery_s["actor_died"] = [1.5]
    folder.write_state(state)
    assert folder.read_state() == state


def test_a_damaged_state_is_named(tmp_path):
    folder = RunFolder.create(config(tmp_path))
    folder.state.write_text('{"status": ')
    with pytest.raises(ConfigError, match="not the state of a run"):
        RunFolder.open(folder.path)


def test_a_finished_run_is_not_resumed(tmp_path, capsys):
    folder = RunFolder.create(config(tmp_path))
    folder.write_state(RunState(status="done"))
    assert main(["run", "--resume", str(folder.path)]) == 2
    assert "that run is done" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["tasks", "show", "fold"], "task=fold: unknown task"),
        (["tasks", "show", "pick_place", "--seeds", "0"], "--seeds=0"),
        (["episode", "make", "--recipe", "{}"], "--recipe"),
        (["episode", "make"], "expected a task name"),
        (["evaluate", "nowhere"], "checkpoint=nowhere"),
        (["bench", "rollout", "--actors", "0"], "--actors=0"),
        (["bench", "reuse", "--draws", "0"], "--draws=0"),
        (["bench", "fresh-rate", "--targets", "0.01"], "--targets: replay.fresh_per_step=0.64: expected"),
        (["run"], "expected a configuration"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(arguments, named, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_every_command_has_help_that_teaches():
    text = make_parser().format_help()
    for command in ("run", "evaluate", "tasks", "episode", "bench", "doctor", "config"):
        assert command in text
    assert "configs/quickstart.yaml" in text


def test_the_task_list_is_json_on_request(capsys):
    assert main(["tasks", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"pick_place", "handover", "two_arm_lift"} <= {row["name"] for row in rows}
    assert all({"family", "split"} <= row.keys() for row in rows)


def test_a_ray_that_does_not_start_is_said_in_one_line(monkeypatch, tmp_path, capsys):
    """Ray's own exception for processes that are slow to start is a bare `Exception`."""

    def slow(**settings: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", slow)
    assert main(["run", "configs/tiny.yaml", f"output={tmp_path}"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "embodichain: failed: Ray did not start: The current node timed out during startup."
    )
