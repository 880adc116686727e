"""The vision path through the same loop: rendered frames, DINOv3 latents as generative targets, every stage."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embodichain.doctor import renderer_available

ROOT = Path(__file__).parents[2]
VISION = [
    "encoder.name=dinov3",
    "encoder.width=64",
    "encoder.height=64",
    "window.phase_step=8",
    "learner.steps=12",
    "learner.batch_windows=4",
    "learner.network.frame_mode=token",
    "evaluation.seeds=1",
    "evaluation.videos=1",
    "replay.min_size_pairs=200",
    "actors.replay_fraction=0",
]


@pytest.mark.render
def test_a_vision_run_ends_with_a_score_and_a_video(tmp_path):
    available, why = renderer_available()
    if not available:
        pytest.skip(why)
    done = subprocess.run(
        [sys.executable, "-m", "embodichain", "run", "configs/tiny.yaml", f"output={tmp_path}", *VISION],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "tiny" / "summary.json").read_text())
    assert summary["status"] == "done"
    assert summary["encoder"] == "dinov3"
    assert not summary["privileged_state"]
    assert summary["learner_steps"] == 12
    assert summary["success"][0]["n"] == 1
    assert (tmp_path / "tiny" / "videos" / "pick_place.mp4").stat().st_size > 1000
