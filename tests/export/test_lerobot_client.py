"""The real lerobot, in its own environment, loads what we write, and we read what it records."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embodichain.export import FeatureMap, read, write
from embodichain.export.layout import UNIFIED_NAMES
from embodichain.export.stats import QUANTILES

ROOT = Path(__file__).resolve().parents[2]
CODEC_MEAN = 3.0  # levels of 255, over a frame

Client = Callable[..., str]


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """Runs a script of this repository in lerobot's environment, without any hub; returns what it prints."""
    python = ROOT / ".venv-lerobot/bin/python"
    if not python.exists():
        pytest.skip("no .venv-lerobot: make lerobot-client")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)

    def run(script: str, *arguments: object) -> str:
        command = [str(python), str(ROOT / script), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


@pytest.mark.lerobot
def test_lerobot_loads_what_we_write(make: Callable, client: Client, tmp_path: Path) -> None:
    episodes = [make(seed, length, views=2) for seed, length in enumerate((24, 9, 40))]
    lengths = [e.pairs for e in episodes]
    write(tmp_path / "set", episodes, cameras=("front", "top"))
    rows = [0, 23, 24, 32, 33, 72]
    shown = client("scripts/check_lerobot.py", tmp_path / "set", "--arrays", tmp_path / "a.npz", "--rows", *rows)
    report = json.loads(shown)
    steps = [(e, t) for e, length in enumerate(lengths) for t in range(length)]
    assert (report["rows"], report["episodes"], report["fps"]) == (73, 3, 20)
    assert report["episode_index"] == [e for e, _ in steps]
    np.testing.assert_allclose(report["timestamp"], [t / 20 for _, t in steps], atol=1e-6)
    assert report["tasks"] == [episodes[e].instruction for e, _ in steps]
    assert report["done"] == [t == lengths[e] - 1 for e, t in steps]
    assert report["names"] == list(UNIFIED_NAMES)
    assert report["shapes"]["observation.images.top"] == [3, 64, 96]
    assert report["shapes"]["observation.state"] == report["shapes"]["action"] == [30]
    assert set(report["stats_keys"]["action"]) == {"min", "max", "mean", "std", "count", *QUANTILES}
    assert report["stats_difference"] < 1e-6
    assert report["image_stats_difference"] < 0.01
    assert report["chunks_follow"] is True
    arrays = np.load(tmp_path / "a.npz")
    for number, row in enumerate(rows):
        e, t = steps[row]
        assert np.array_equal(arrays["observation.state"][number], episodes[e].proprio[t])
        assert np.array_equal(arrays["action"][number], episodes[e].action[t])
        for view, camera in enumerate(("front", "top")):
            decoded = 255 * arrays[f"observation.images.{camera}"][number].transpose(1, 2, 0)
            rgb = episodes[e].rgb.astype(float)
            assert np.abs(decoded - rgb[t, view]).mean() < CODEC_MEAN
            assert np.abs(decoded - rgb[t + 1, view]).mean() > CODEC_MEAN  # not its neighbour


@pytest.mark.lerobot
def test_we_read_what_lerobot_records(picture: Callable, client: Client, tmp_path: Path) -> None:
    lengths, rng = (12, 21), np.random.default_rng(0)
    steps = [(e, t) for e, length in enumerate(lengths) for t in range(length)]
    action, state = (rng.normal(size=(len(steps), 14)).astype(np.float32) for _ in range(2))
    frames = np.stack([picture(e, t, 0) for e, t in steps])
    episode = np.array([e for e, _ in steps])
    np.savez(tmp_path / "numbers.npz", action=action, state=state, frames=frames, episode=episode)
    client("tests/export/lerobot_records.py", tmp_path / "recorded", tmp_path / "numbers.npz")
    joints = {f"{arm}.q{j + 1}": f"{arm}_{'abcdef'[j]}" for arm in ("left", "right") for j in range(6)}
    read_back = list(read(tmp_path / "recorded", mapping=FeatureMap.from_config({"action": joints}), tau=4))
    assert [(e.pairs, e.instruction, e.control_hz) for e in read_back] == [(11, "task 0", 10.0), (20, "task 1", 10.0)]
    for each, start in zip(read_back, (0, 12), strict=True):
        each.check()
        assert np.array_equal(each.action[:, 7:13], action[start : start + each.pairs, :6])
        assert np.array_equal(each.proprio[:, 22:28], state[start : start + each.pairs + 1, 7:13])
        assert np.flatnonzero(each.action_valid).tolist() == [*range(7, 13), *range(22, 28)]
        assert each.rgb is not None
        apart = np.abs(each.rgb[:, 0].astype(float) - frames[start : start + each.pairs + 1 : 4]).mean(axis=(1, 2, 3))
        assert (apart < 2 * CODEC_MEAN).all()  # lerobot records at a lower quality
