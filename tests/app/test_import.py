"""`embodichain archive import` as its user runs it: a dataset becomes an archive that `fit` learns from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embodichain.app.cli import main
from embodichain.app.commands.checkpoints import find_checkpoint
from embodichain.app.config import load_config
from embodichain.archive import Archive
from embodichain.contracts import seed_range
from embodichain.encoders.dinov3 import DINOv3Encoder
from embodichain.export import read, write
from tests.export.conftest import recorded

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs" / "tiny.yaml")
IMAGES = [TINY, "encoder.name=dinov3", "encoder.weights=random:tiny", "encoder.width=32", "encoder.height=32"]
IMAGES += ["window.tau=4", "window.phase_step=4"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write(tmp_path / "set", [recorded(seed_range("train").at(i), 24 + 4 * i) for i in range(4)])
    return tmp_path / "set"


def run(*words: object) -> int:
    return main(["archive", "import", *map(str, words)])


def test_an_imported_dataset_is_an_archive_that_fit_learns_from(dataset: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert run(dataset, out, *IMAGES, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"imported": 4, "there": 0}
    archive = Archive.open(str(out))
    config = load_config(IMAGES[0], [*IMAGES[1:], f"episodes=archive:{out}"])  # a run takes it too
    assert archive.made_with == json.loads(json.dumps(config.made_with))
    encoder = DINOv3Encoder(weights="random:tiny", views=1, height=32, width=32)
    for kept, original in zip(archive.episodes(), read(dataset, tau=4, size=(32, 32)), strict=True):
        assert original.rgb is not None
        assert (kept.recipe, kept.instruction, kept.encoder_id) == (original.recipe, original.instruction, encoder.id)
        np.testing.assert_array_equal(kept.tokens, encoder.encode_rgb(original.rgb))
        np.testing.assert_array_equal(kept.action, original.action)
    assert run(dataset, out, *IMAGES, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"imported": 0, "there": 4}
    words = ["replay.mode=static", "replay.min_size_pairs=20", "learner.steps=2", "heldout=0", f"output={tmp_path}"]
    assert main(["fit", "--json", "--archive", str(out), *IMAGES[:1], *IMAGES[-2:], *words]) == 0
    assert json.loads(capsys.readouterr().out)["learner_steps"] == 2
    (folder,) = {path.parent for path in tmp_path.glob("*/fit.yaml")}
    config = load_config(folder / "config.yaml")
    assert find_checkpoint(str(folder))[1:] == (2, config)
    # trained on a GPU, scored where there is none
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace("gpu: false", "gpu: true"))
    assert load_config(folder / "config.yaml") != config
    assert find_checkpoint(str(folder))[2].learner == config.learner
    # data of somebody else's tasks: the checkpoint can be served, and scored on tasks that are named
    text = (folder / "config.yaml").read_text().replace("pick_place:", "pour the tea:")
    (folder / "config.yaml").write_text(text)
    assert set(find_checkpoint(str(folder))[2].tasks) >= {"pick_place", "handover"}


def test_the_same_command_goes_on_after_a_damaged_file(dataset: Path, tmp_path: Path, capsys) -> None:
    (video,) = dataset.glob("videos/*/*/*.mp4")
    film = video.read_bytes()
    video.write_bytes(film[: len(film) // 2])
    assert run(dataset, tmp_path / "out", *IMAGES) == 1
    assert "file-000.mp4" in capsys.readouterr().err
    video.write_bytes(film)
    assert run(dataset, tmp_path / "out", *IMAGES) == 0
    assert len(Archive.open(str(tmp_path / "out")).entries()) == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([TINY], "encoder.name=state: its tokens are made from the simulator's state"),
        ([*IMAGES, "encoder.cameras=[top]"], "camera 'top': expected a video among its cameras: front (video)"),
        ([*IMAGES, "window.tua=3"], "window.tua: unknown key"),
        ([*IMAGES, "encoder.weights=/nowhere"], "encoder.weights=/nowhere"),
        ([*IMAGES, "--mapping", "/nowhere.yaml"], "--mapping /nowhere.yaml"),
        ([*IMAGES, "--mapping", TINY], "mapping: ['actors', "),
        ([*IMAGES, "--mapping", "{mapping}"], "action has no 'elbow'"),
        ([*IMAGES, "--mapping", "{cameras}"], "mapping.cameras=['wrist']: expected those of encoder.cameras, or none"),
    ],
)
def test_a_mistake_is_one_line_and_creates_nothing(dataset: Path, tmp_path: Path, capsys, words, expected) -> None:
    files = {"mapping": tmp_path / "mapping.yaml", "cameras": tmp_path / "cameras.yaml"}
    files["mapping"].write_text("action: {left.q1: elbow}")
    files["cameras"].write_text("{action: {left.q1: 0}, cameras: [wrist]}")
    assert run(dataset, tmp_path / "out", *(word.format(**files) for word in words)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert expected in said
    assert not (tmp_path / "out").exists()
    assert run(tmp_path / "none", tmp_path / "out", *IMAGES) == 2
    assert "no LeRobotDataset" in capsys.readouterr().err
