"""The report: every section from a full run, and no section invented from an empty one."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import pytest

from embodichain.telemetry.metrics import MetricPoint, success_metrics
from embodichain.telemetry.report import write_report

ROW = {"task": "pick_place", "split": "heldout_seeds", "domain": "default", "n": 30, "rate": 0.6, "low": 0.42}
SUMMARY: dict[str, Any] = {
    "name": "quickstart",
    "config_hash": "ab12",
    "code_version": "deadbeef",
    "wall_seconds": 560.0,
    "status": "done",
    "episodes": {"generated": 1200, "accepted": 1170, "rejected": {"no_success": 30}},
    "frames": 12,
    "learner_steps": 9000,
    "experience_throughput": 17.31,
    "reuse": {"bound": 16.0, "max": 16.0, "mean": 11.9},
    "stall_fraction": 0.05,
    "actor_idle_fraction": 0.2,
    "heldout_error": {"first": 0.5, "last": 0.1, "input_blind": 0.4, "unit": "rad"},
    "success": [{**ROW, "high": 0.75, "first_rate": 0.0}],
    "faults": {"actor_killed": {"count": 1, "recovery_s_p50": 1.7}},
}


def points(name: str, values: list[float]) -> list[MetricPoint]:
    return [MetricPoint(name=name, value=v, step=10 * i, t=float(i)) for i, v in enumerate(values)]


def full_history() -> dict[str, list[MetricPoint]]:
    names = [
        "learner/loss_video",
        "learner/loss_action",
        "learner/stall_fraction",
        "heldout/action_error",
        "heldout/input_blind_error",
        "replay/experience_throughput",
        "replay/reuse_max",
        "replay/reuse_mean",
        "generation/episodes_per_min",
        "generation/actor_idle_fraction",
        *success_metrics(SUMMARY["success"][0]),
    ]
    return {name: points(name, [0.5, math.nan, 0.4, 0.3]) for name in names}


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_full_report(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    clip = tmp_path / "videos" / "pick_place.mp4"
    clip.write_bytes(b"")
    text = write_report(tmp_path, SUMMARY, full_history(), videos=[clip]).read_text()
    for part in (
        "# quickstart",
        "| pick_place | heldout_seeds | default | 0.0 % | 60.0 % | 42.0 % to 75.0 % | 30 |",
        "| 0.5 rad | 0.1 rad | 0.4 rad |",
        "25 % of the error of a model that ignores its input",
        "1,170 (97.5 %)",
        "16 of at most 16 (kept)",
        "| actor_killed | 1 | 1.7 s |",
        "[pick_place.mp4](videos/pick_place.mp4)",
        "| `learner/loss_action` | 0.3 | loss | 30 |",
    ):
        assert part in text
    for name in ("success", "heldout_error", "losses", "experience", "generation"):
        assert f"(figures/{name}.png)" in text
        assert min(png_size(tmp_path / "figures" / f"{name}.png")) > 400


def test_a_heldout_error_that_is_not_finite_is_said(tmp_path: Path) -> None:
    error = {"first": 0.5, "last": None, "by_domain": {"default": None}, "input_blind": 0.4, "unit": "rad"}
    text = write_report(tmp_path, {**SUMMARY, "heldout_error": error}, {}).read_text()
    assert "| 0.5 rad | not finite | 0.4 rad |" in text
    assert "of the error of a model" not in text


def test_a_run_without_data_says_so_and_draws_nothing(tmp_path: Path) -> None:
    text = write_report(tmp_path, {"name": "short", "status": "failed"}, {}).read_text()
    assert "No checkpoint was scored" in text
    assert "too short to draw curves" in text
    assert not list((tmp_path / "figures").iterdir())


def test_an_exceeded_bound_is_said_loudly(tmp_path: Path) -> None:
    summary = {**SUMMARY, "reuse": {"bound": 4.0, "max": 5.0, "mean": 2.0}}
    assert "5 of at most 4 (**exceeded**)" in write_report(tmp_path, summary, {}).read_text()


def test_a_video_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not in the subpath"):
        write_report(tmp_path / "run", SUMMARY, {}, videos=[tmp_path / "clip.mp4"])
