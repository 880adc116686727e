"""`embodichain encoder train` and the frames it learns from."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from embodichain.app import frames
from embodichain.app.cli import main
from embodichain.app.encoder_training import EncoderTraining, train_encoder
from embodichain.app.settings import ConfigError, merged, save_config
from embodichain.contracts import seed_range
from embodichain.doctor import renderer_available
from embodichain.encoders.decoder import FrameDecoder
from embodichain.encoders.dinov3 import DINOv3Encoder
from learner.distill import DistillConfig

needs_renderer = pytest.mark.skipif(not renderer_available()[0], reason="no Vulkan device")
TINY = DistillConfig(width=32, depth=1, heads=2, head_width=32, prototypes=8, patch_prototypes=16, steps=4, batch=8)


def test_recipes_are_of_training_only_take_domains_in_turn_and_never_repeat() -> None:
    drawn = list(islice(frames.training_recipes(0), 60))
    assert [recipe.domain for recipe in drawn[:4]] == ["full", "full", "default", "full"]
    assert len({(recipe.task, recipe.seed) for recipe in drawn}) == 60
    assert all(recipe.seed in seed_range("train") for recipe in drawn)
    assert drawn == list(islice(frames.training_recipes(0), 60))


def test_frames_of_a_held_out_side_are_never_asked_for() -> None:
    drawn = frames.training_recipes(0, ["pick_place"], ("full", "default@scenes"))
    assert next(drawn).domain == "full"
    with pytest.raises(ValueError, match="domain=default@scenes: training never draws it"):
        next(drawn)


@pytest.mark.render
@needs_renderer
def test_an_encoder_is_made_stopped_and_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = EncoderTraining(frames=24, size=32, every=40, part=2, distill=TINY, decoder_steps=3)
    stages: list[tuple[str, int]] = []

    def report(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        stages.append((stage, done))

    def stop() -> bool:
        return bool(stages) and stages[-1] == ("distilling", 2)

    assert train_encoder(config, tmp_path, report, stop) is None
    assert (tmp_path / "weights/model.safetensors").exists()
    made = train_encoder(config, tmp_path, report, lambda: False)
    assert made is not None
    assert [done for stage, done in stages if stage == "distilling"] == [1, 2, 3, 4]
    assert stages[-1] == ("decoder", 3)
    assert made["frames"] >= 24
    assert set(made["cost"]) == {"frames", "distilling", "decoder"}
    encoder = DINOv3Encoder(weights=str(tmp_path / "weights"), views=1, height=32, width=32)
    assert made["encoder_id"] == encoder.id == FrameDecoder.load(tmp_path / "weights").encoder_id
    kept = frames.FrameSet.joined([frames.read_part(path) for path in frames.part_files(tmp_path / "frames")])
    assert kept.rgb.shape[1:] == (32, 32, 3)
    assert kept.rgb.std() > 5
    assert set(kept.camera) == {0, 1, 2, 3}
    assert np.isfinite(kept.tool_position).all()
    with pytest.raises(ConfigError, match="seed=0, this run wants 1"):
        train_encoder(EncoderTraining(**{**config.__dict__, "seed": 1}), tmp_path, report, lambda: False)
    assert main(["encoder", "train", "--output", str(tmp_path)]) == 2
    assert "an encoder was made there" in capsys.readouterr().err
    assert json.loads((tmp_path / "made.json").read_text())["episodes"] >= 2


def test_another_recipe_is_refused_and_the_first_one_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun = EncoderTraining(frames=24, size=32, distill=TINY)
    save_config(begun, tmp_path / "train.yaml")
    for words, said in (
        (["decoder_steps=9"], "frames=24, this run wants 8000"),
        (["frames=24", "distill.batch=24"], "size=32"),
    ):
        assert main(["encoder", "train", "--output", str(tmp_path), *words]) == 2
        assert said in capsys.readouterr().err
    assert merged(EncoderTraining, tmp_path / "train.yaml", []) == begun
    (tmp_path / "file").write_text("")
    assert main(["encoder", "train", "--output", str(tmp_path / "file")]) == 2
    assert "is not a writable folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frames=10"], "frames=10: expected at least distill.batch=32"),
        (["size=40"], "size=40: expected a positive multiple of 16"),
        (["distill.heads=7"], "distill.width=192, heads=7"),
        (["distill.lr=-1"], "distill.lr=-1.0: expected more than 0"),
        (["distill.masked=3"], "distill.masked=3.0: expected a number in [0, 1]"),
        (["distill.head_width=0"], "distill.head_width=0: expected at least 1"),
        (["distill.colour=1"], "colour"),
        (["gpu=true"], "gpu=true: torch sees no GPU here"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["encoder", "train", "--output", str(tmp_path / "e"), *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "e").exists()
