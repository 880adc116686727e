"""`embodichain imagine`: files and figures of an untrained checkpoint, and one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from embodichain.app.cli import main
from embodichain.app.components import make_encoder
from embodichain.app.config import load_config, save_config
from embodichain.app.dream_pictures import feature_colours, top_view
from embodichain.app.folder import RunFolder, RunState
from embodichain.app.imagining import Dream
from embodichain.doctor import renderer_available
from embodichain.encoders.state import CHANNELS, places_of
from embodichain.telemetry.logger import LoggerConfig, RunLogger
from learner.build import build_model
from learner.checkpoint import load_state, save_checkpoint
from learner.config import DataSpec
from learner.train_step import TrainState

TINY = str(Path(__file__).parents[2] / "configs" / "tiny.yaml")
RENDERER = renderer_available()[0]


def checkpoint(folder: Path, *overrides: str) -> Path:
    """A run's folder with one untrained checkpoint."""
    config = load_config(TINY, [f"output={folder}", "learner.network.flow.video_steps=1", *overrides])
    run = folder / "tiny"
    run.mkdir()
    save_config(config, run / "config.yaml")
    encoder = make_encoder(config)
    data = DataSpec(
        tokens=encoder.max_tokens,
        channels=encoder.channels,
        chunk=config.window.chunk,
        tau=config.window.tau,
        control=config.learner.control,
        encoder_id=encoder.id,
    )
    state = TrainState(build_model(config.learner.network, data), config.learner.train)
    save_checkpoint(run / "checkpoints" / "step_3", state)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("runs"))


def test_the_expert_acts_and_the_model_looks_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["imagine", str(run), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["task"], row["acts"], row["success"]) == ("pick_place", "expert", True)
    assert row["steps"] == 8 * row["frames"]
    assert 0 < row["frame_copy"] < row["frame"]  # it has learned nothing: noise is worse than the present frame
    assert row["unit"] == "rad"
    assert 0 < row["position_copy_mm"] < 100
    output = run / "imagine" / "step_3"
    assert (output / "pick_place-chunks.png").stat().st_size > 5000
    assert json.loads((output / "imagine.json").read_text())["rows"] == [row]
    if RENDERER:
        film = imageio.imread(output / "pick_place.mp4")
        assert film.shape[1:3] == (360, 840)
        assert len(film) >= row["steps"] // 2


def test_the_model_acts(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["imagine", str(run / "checkpoints/step_3"), "--acts", "model", "--steps", "20", "--output", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["acts"], row["steps"], row["success"]) == ("model", 24, False)
    assert "chunk" not in row


def no_such_number(word: str) -> float:
    """For `parse_constant`: JSON knows neither NaN nor Infinity, and other readers of it stop there."""
    raise AssertionError(f"{word} in JSON")


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_files_are_attached_where_the_run_was_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a rollout of a single frame: nobody sees what comes after it, so there are no errors of imagined frames."""
    uri = f"sqlite:///{tmp_path}/elsewhere/mlflow.db"
    run = checkpoint(tmp_path, f"mlflow.tracking_uri={uri}")
    logger = RunLogger(LoggerConfig(tracking_uri=uri, artifact_root=str(tmp_path / "artifacts")))
    logger.finish("done")
    RunFolder(run).write_state(RunState(mlflow_run_id=logger.run_id))
    words = ["imagine", str(run), "--acts", "model", "--steps", "8", "--mlflow", "--json"]
    assert main(words) == 0
    (row,) = json.loads(capsys.readouterr().out, parse_constant=no_such_number)
    assert (row["steps"], row["frames"], row["success"]) == (8, 1, False)
    assert not {"frame", "frame_copy", "position_mm", "position_copy_mm", "chunk"} & set(row)
    text = (run / "imagine/step_3/imagine.json").read_text()
    assert json.loads(text, parse_constant=no_such_number)["rows"] == [row]
    artifacts = MlflowClient(uri).list_artifacts(logger.run_id, "imagine/step_3")
    assert "imagine/step_3/imagine.json" in [each.path for each in artifacts]
    assert not (tmp_path / "mlflow.db").exists()
    save_config(load_config(run / "config.yaml", ["mlflow.tracking_uri=http://127.0.0.1:9"]), run / "config.yaml")
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "mlflow.tracking_uri=http://127.0.0.1:9: the tracking store does not answer" in said
    assert said.count("\n") == 1


@pytest.mark.render
@pytest.mark.skipif(not RENDERER, reason="no Vulkan device")
def test_image_tokens_of_two_cameras(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["encoder.name=dinov3", "encoder.width=64", "encoder.height=64", "encoder.cameras=[front,top]"]
    run = checkpoint(tmp_path, *words, "window.phase_step=8", "learner.network.frame_mode=token")
    assert main(["imagine", str(run), "--acts", "model", "--steps", "16", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert np.isfinite(row["frame"])
    assert (run / "imagine/step_3/pick_place-features.png").stat().st_size > 5000
    assert imageio.imread(run / "imagine/step_3/pick_place.mp4").shape[2] == 480 + 3 * 360


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["/no/such/run"], "checkpoint=/no/such/run: expected runs/<name>"),
        (["{run}", "--tasks", "juggle"], "task=juggle: unknown task"),
        (["{run}", "--tasks", "stack_blocks"], "--tasks=stack_blocks: the checkpoint has slots for"),
        (["{run}", "--seed", "-1"], "--seed=-1"),
        (["{run}", "--mlflow"], "has no record in MLflow"),
    ],
)
def test_a_mistake_is_one_line(run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["imagine", *(word.format(run=run) for word in words)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_broken_or_foreign_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = checkpoint(tmp_path)
    step = run / "checkpoints/step_3"
    info = (step / "checkpoint.json").read_text()
    (step / "checkpoint.json").write_text(info.replace('"encoder_id": "state', '"encoder_id": "other'))
    assert main(["imagine", str(run)]) == 2
    assert "trained on tokens of encoder 'other-v3" in capsys.readouterr().err
    (step / "checkpoint.json").write_text(info)
    weights = step / "ema.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    assert main(["imagine", str(run)]) == 2
    assert "ema.safetensors is damaged" in capsys.readouterr().err
    assert not (run / "imagine").exists()


def test_a_model_that_imagines_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = checkpoint(tmp_path, "learner.network.kind=flow_policy")
    assert main(["imagine", str(run)]) == 2
    assert "a flow_policy imagines nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("acts", "part", "what"), [("model", "action_out", "chunk"), ("expert", "video_in", "next frame")]
)
def test_a_model_that_puts_out_nan_ends_the_rollout(
    tmp_path: Path, acts: str, part: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who acts makes no difference: of what is not finite nothing is executed, drawn or written down."""
    run = checkpoint(tmp_path)
    state, _ = load_state(run / "checkpoints/step_3")
    with torch.no_grad():
        for parameter in getattr(state.ema, part).parameters():
            parameter.fill_(float("nan"))
    save_checkpoint(run / "checkpoints/step_3", state)
    assert main(["imagine", str(run), "--acts", acts, "--json"]) == 1
    out, said = capsys.readouterr()
    assert out == ""
    assert f"the checkpoint ends the rollout at control step 0: the {what} that it" in said
    assert "pick_place seed" in said
    assert said.count("\n") == 1
    assert not (run / "imagine/step_3").exists()


def test_the_top_view_shows_things_where_they_are() -> None:
    tokens = np.zeros((4, CHANNELS), dtype=np.float32)
    tokens[0, 3:6], tokens[0, 6], tokens[0, 30:33] = (0.2, 0.3, 0.0), 1.0, 0.05  # ahead and to the left
    places = places_of(tokens)
    mask = np.array([True, False, False, False])
    drawn = top_view(places, places, mask, slice(1, 2)).astype(int)
    changed = np.argwhere(np.abs(drawn - drawn[-1, -1]).sum(axis=-1) > 30)
    row, column = changed.mean(axis=0)
    assert row == pytest.approx(180 - 0.2 * 360 / 1.1, abs=3)
    assert column == pytest.approx(180 - 0.3 * 360 / 1.1, abs=3)


def test_equal_tokens_have_equal_colours() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(5, 8, 16).numpy()
    dream = Dream(
        instruction="", by_expert=True, success=True, tau=8, tokens=tokens, token_mask=np.ones(8, dtype=bool),
        imagined=np.roll(tokens, -1, axis=0), chunk=np.zeros((5, 8, 30)), action=np.zeros((40, 30)), rgb=None, film=[],
    )  # fmt: skip
    true, imagined = feature_colours(dream, (2, 4))
    assert true.shape == (5, 1, 2, 4, 3)
    np.testing.assert_array_equal(true[1:], imagined[:-1])
