"""`bench sight`: what is in the tokens is told, sooner with more scenes; what is not is not; bad input is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.sight import Scenes, run
from embodichain.app.cli import main


def cm(row: dict[str, object], key: str) -> float:
    value = row[key]
    assert isinstance(value, float)
    return value


def test_what_the_tokens_hold_is_told_and_the_rest_is_guessed() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(240, 30)).astype(np.float32)
    seen = 0.1 * features.astype(np.float64) @ rng.normal(size=(30, 3)) / 30**0.5
    scenes = Scenes(
        features=features,
        places={"object cube": seen, "goal disc": 0.1 * rng.normal(size=(240, 3)), "goal table": np.ones((240, 3))},
    )
    cube, disc, table = run("pick_place", scenes)
    assert cube["thing"] == "object cube"
    assert cube["task"] == "pick_place"
    assert [key for key in cube if key.startswith("cm_")] == ["cm_20", "cm_40", "cm_80", "cm_160"]
    blind, few, many = (cm(cube, key) for key in ("blind_cm", "cm_20", "cm_160"))
    assert many < 0.1 * blind
    assert many < few
    assert disc["cm_160"] == pytest.approx(disc["blind_cm"], rel=0.15)
    assert table["blind_cm"] == table["cm_160"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["configs/quickstart.yaml"], "encoder.name=state: it is told where things are"),
        (["configs/vision.yaml", "--scenes", "20"], "--scenes=20: expected at least 48"),
        (["configs/vision.yaml", "--tasks", "fold"], "task=fold: unknown task; expected one of "),
        (["configs/vision.yaml", "encoder.weights=/nowhere"], "/nowhere"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[2]
    assert main(["bench", "sight", str(root / arguments[0]), *arguments[1:]]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
