"""`bench memory` and `bench train-speed` in small: their rows, and what is concluded from them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory import findings
from embodichain.app.cli import main
from embodichain.app.commands.bench_record import record

ROOT = Path(__file__).parents[2]
BARE = ["ray", "sapien", "mani_skill", "mlflow", "gymnasium"]  # not installed where there is only a GPU and torch


def test_bench_memory_in_small(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path}/runs/mlflow.db"
    words = ["--preset", "tiny", "--frames", "30", "--rounds", "1", "--json", "--mlflow", store]
    assert main(["bench", "memory", *words]) == 0
    rows = json.loads(capsys.readouterr().out)
    client = MlflowClient(store)
    (run,) = client.search_runs([client.search_experiments(filter_string="name = 'benchmarks'")[0].experiment_id])
    assert (run.info.run_name, run.info.status) == ("memory", "FINISHED")
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"memory.json", "memory.png"}
    sizes = {(row["layout"], row["memory"], row["frames"]): row["state_bytes"] for row in rows if "memory" in row}
    assert sizes["poses", "ttt", 10] == sizes["poses", "ttt", 30] > 0
    assert sizes["poses", "window", 10] == sizes["poses", "window", 30] > 0
    per_frame = (sizes["poses", "kv", 30] - sizes["poses", "kv", 10]) / 20
    assert per_frame == (sizes["poses", "kv", 10] - sizes["poses", "kv", 10] % per_frame) / 10
    assert sizes["image", "none", 30] == 0
    assert len(rows) == 2 * 4 * 2 + 2


def test_bench_memory_in_closed_loop_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--folder", str(tmp_path), "--episodes", "25", "--steps", "2", "--windows", "2", "--seeds", "2"]
    assert main(["bench", "memory", "--closed-loop", *words, "--seed-range", "tune"]) == 0
    said = capsys.readouterr().err
    assert all(f"\n{kind}, tune, n " in said for kind in ("ttt", "kv", "window", "none"))  # as soon as each is known
    again = ["bench", "memory", "--closed-loop", *words, "--seed-range", "tune", "--json"]
    assert main(again) == 0  # what is there already is not made again
    rows = json.loads(capsys.readouterr().out)
    assert [row["memory"] for row in rows] == ["ttt", "kv", "window", "none"]
    for each in rows:
        assert each["n"] in (1, 2)  # the expert may fail on one
        assert each["across"] <= each["n"]
        assert each["steps"] == 2


def test_a_record_that_cannot_be_written_says_where_the_result_is(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = tmp_path / "memory.json"
    result.write_text("{}")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow-artifacts").write_text("no folder")
    with pytest.raises(RuntimeError, match=rf"--mlflow: sqlite:.*; the result is in {result}"):
        record(f"sqlite:///{tmp_path}/runs/mlflow.db", "memory", {"command": "bench memory"}, [result])


def row(kind: str, frames: int, size: float, ms: float) -> dict[str, object]:
    return {"layout": "poses", "memory": kind, "frames": frames, "state_bytes": size, "step_ms": ms}


def test_findings_of_known_curves() -> None:
    rows = [row("ttt", t, 100, ms) for t, ms in ((10, 0.9), (20, 1.1))]
    rows += [row("kv", t, 8 * t, 0.5) for t in (10, 20)]
    (found,) = findings(rows)
    assert found["kv_larger_from"] == pytest.approx(12.5)
    assert found["kv_slower_from"] == "not reached"
    assert found["ttt_bytes_off_mean"] == 0
    assert found["ttt_step_off_mean"] == pytest.approx(0.1)


@pytest.mark.parametrize("words", [["--frames", "5"], ["--rounds", "0"], ["--mlflow", "http://127.0.0.1:9"]])
def test_impossible_lengths_are_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "memory", *words]) == 2
    assert words[0] in capsys.readouterr().err


def test_bench_train_speed_in_small(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--preset",
        "tiny",
        "--windows",
        "4",
        "--rounds",
        "1",
        "--json",
        "--cases",
        "fp32 recomputed",
        "fp32",
        "bf16",
    ]
    assert main(["bench", "train-speed", *words]) == 0
    rows = {row["case"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {"fp32", "bf16", "fp32 recomputed"}
    for each in rows.values():
        assert each["gflop_per_window"] == rows["fp32"]["gflop_per_window"]
        assert 0 < each["mfu"] == pytest.approx(each["gflop_per_s"] / each["peak_gflop_per_s"])


def test_an_unknown_case_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "train-speed", "--cases", "fp32", "fp16"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--cases 'fp16': expected some of 'fp32', 'bf16'" in said


def test_training_speed_is_measured_where_there_is_no_ray_and_no_simulator() -> None:
    words = ["bench", "train-speed", "--preset", "tiny", "--windows", "2", "--rounds", "1", "--cases", "fp32", "--json"]
    code = f"import sys\nfor name in {BARE!r}: sys.modules[name] = None\n"
    code += f"from embodichain.app.cli import main\nsys.exit(main({words!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [row["case"] for row in json.loads(done.stdout)] == ["fp32"]


def test_flops_are_those_of_the_matrix_products() -> None:
    """A network of one hidden layer, by hand: 2 n (in hidden + hidden out) forward, twice that backward but for dx."""
    with FlopCounterMode(display=False) as counter:
        torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))(torch.randn(10, 8)).sum().backward()
    forward = 2 * 10 * (8 * 16 + 16 * 4)
    assert counter.get_total_flops() == 3 * forward - 2 * 10 * 8 * 16
