"""Cells from the folders of runs and from plain tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embodichain.law import LawError, read_cells
from embodichain.law.csv_table import read_csv

SUMMARY: dict[str, Any] = {
    "name": "a",
    "config_hash": "0123456789ab",
    "code_version": "abc",
    "encoder": "state",
    "model": "clwm",
    "parameters": 812_345,
    "wall_seconds": 100.0,
    "status": "done",
    "episodes": {"generated": 50, "accepted": 48, "rejected": {}},
    "learner_steps": 200,
    "pair_uses": 51_200,
    "experience_throughput": 8.0,
    "core_seconds": {"generation": 30.0, "learner": 90.0},
    "reuse": {"bound": 60.0, "max": 33.0, "mean": 30.0},
    "stall_fraction": 0.02,
    "heldout_error": {"first": 18.0, "last": 4.0, "input_blind": 17.6, "unit": "mm"},
    "success": [{"task": "handover", "split": "heldout_seeds", "domain": "default", "n": 30, "rate": 0.9}],
    "mlflow_run_id": "f00",
}
CONFIG = """\
name: a
seed: 3
replay: {mode: stream, max_reuse: 60, fresh_per_step: 8.0}
evaluation: {seed_range: eval, seeds: 30, step_limit_ratio: 2.0, replan: 8, heldout_episodes: 8}
"""


def write_run(folder: Path, summary: dict[str, Any] | None = None, config: str = CONFIG, cell: Any = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({**SUMMARY, **(summary or {})}))
    (folder / "config.yaml").write_text(config)
    if cell is not None:
        (folder / "cell.json").write_text(json.dumps(cell))
    return folder


def test_a_run_becomes_a_cell(tmp_path: Path) -> None:
    (cell,) = read_cells([write_run(tmp_path / "a")])
    assert (cell.arm, cell.mode, cell.seed, cell.parameters) == ("stream", "stream", 3, 812_345)
    assert (cell.final.step, cell.final.unique_pairs, cell.throughput) == (200, 1600.0, 8.0)
    assert cell.final.core_seconds == 120.0
    assert (cell.final.error, cell.input_blind, cell.protocol.unit) == (4.0, 17.6, "mm")
    assert (cell.final.success[0].k, cell.final.success[0].n) == (27, 30)
    assert (cell.protocol.seed_range, cell.protocol.seeds, cell.protocol.replan) == ("eval", 30, 8)
    assert cell.generated_per_s == 0.5
    (cell,) = read_cells([write_run(tmp_path / "b", {"generation_rate": 0.75})])
    assert cell.generated_per_s == 0.75
    assert cell.mlflow_run_id == "f00"


def test_readings_and_the_sweeps_own_words_are_taken(tmp_path: Path) -> None:
    success = [{"task": "handover", "k": 1, "n": 2, "outcomes": {"3000001": True, "3000000": False}}]
    readings = [
        {"step": 200, "share": 1.0, "unique_pairs": 1600, "core_seconds": 120, "error": 4.0, "success": success},
        {"step": 100, "share": 0.5, "unique_pairs": 800, "core_seconds": 60, "error": 6.0},
    ]
    words = {"arm": "matched_d", "plan_hash": "abc", "values": {"learner.network.width": 64}, "seed": 5}
    (cell,) = read_cells([write_run(tmp_path / "a", {"readings": readings}, cell=words)])
    assert [reading.step for reading in cell.readings] == [100, 200]
    assert cell.final.success[0].outcomes == ((3_000_000, False), (3_000_001, True))
    assert (cell.arm, cell.plan_hash, cell.seed) == ("matched_d", "abc", 5)
    assert cell.values == {"learner.network.width": 64}


def test_an_error_that_is_not_finite_is_none(tmp_path: Path) -> None:
    nothing = {"first": 18.0, "last": None, "by_domain": {"default": None, "b": 2.0}, "input_blind": None, "unit": "mm"}
    (cell,) = read_cells([write_run(tmp_path / "a", {"heldout_error": nothing})])
    assert (cell.final.error, cell.final.errors, cell.input_blind) == (None, {"b": 2.0}, None)


def test_a_folder_of_runs_is_searched_and_values_are_what_varies(tmp_path: Path) -> None:
    write_run(tmp_path / "sweep" / "a")
    other = CONFIG.replace("seed: 3", "seed: 4").replace("fresh_per_step: 8.0", "fresh_per_step: 16.0")
    write_run(tmp_path / "sweep" / "deep" / "b", {"status": "failed"}, config=other)
    cells = read_cells([tmp_path / "sweep"])
    assert [cell.values for cell in cells] == [{"replay.fresh_per_step": 8.0}, {"replay.fresh_per_step": 16.0}]
    assert [cell.status for cell in cells] == ["done", "failed"]


def test_a_cell_without_a_summary_is_a_failed_run_and_attached_copies_are_none(tmp_path: Path) -> None:
    write_run(tmp_path / "mlflow-artifacts" / "sweep" / "a" / "artifacts")
    write_run(tmp_path / "sweep" / "a")
    begun = write_run(tmp_path / "sweep" / "b", cell={"arm": "stream", "seed": 3})
    (begun / "summary.json").unlink()
    write_run(tmp_path / "sweep" / "c", cell={"arm": "stream", "seed": 4, "failed": "its archive was used up"})
    first, second, third = read_cells([tmp_path])
    assert (first.path, first.status) == (str(tmp_path / "sweep" / "a"), "done")
    assert (second.path, second.status, second.readings) == (str(begun), "unfinished", ())
    assert third.status == "failed: its archive was used up"  # whatever its summary says


def test_a_static_run_and_one_that_learned_nothing(tmp_path: Path) -> None:
    static = CONFIG.replace("mode: stream", "mode: static")
    write_run(tmp_path / "a", {"reuse": {"bound": None, "max": 500.0}, "core_seconds": None}, config=static)
    write_run(tmp_path / "b", {"learner_steps": 0, "heldout_error": {}, "success": []})
    first, second = read_cells([tmp_path])
    assert (first.arm, first.reuse_bound, first.final.core_seconds) == ("static", None, None)
    assert second.readings == ()


def test_what_is_no_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LawError, match="no runs given"):
        read_cells([])
    with pytest.raises(LawError, match="no run there"):
        read_cells([tmp_path])
    folder = write_run(tmp_path / "a")
    (folder / "summary.json").write_text("{")
    with pytest.raises(LawError, match=r"summary.json: cannot be read as JSON"):
        read_cells([folder])
    (folder / "summary.json").write_text("[]")
    with pytest.raises(LawError, match="expected a JSON object"):
        read_cells([folder])
    (folder / "summary.json").write_text(json.dumps({**SUMMARY, "reuse": 3}))
    with pytest.raises(LawError, match="not the summary of a run"):
        read_cells([folder])
    (folder / "summary.json").write_text(json.dumps({**SUMMARY, "unique_pairs": "many"}))
    with pytest.raises(LawError, match="not the summary of a run"):
        read_cells([folder])
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "config.yaml").write_text("a: [")
    with pytest.raises(LawError, match=r"config.yaml: not valid YAML"):
        read_cells([folder])


def test_a_plain_table_becomes_cells(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(
        "run,seed,steps,share,throughput,error,k,n,parameters,lr\n"
        "a,0,100,0.5,4,3.0,,,1e6,0.1\n"
        "a,0,200,1.0,4,2.0,5,10,1e6,0.1\n"
        ",1,200,,8,1.5,,,1e6,0.1\n"
    )
    first, second = read_csv(path)
    assert [reading.unique_pairs for reading in first.readings] == [400.0, 800.0]
    assert (first.final.success[0].k, first.parameters, first.values) == (5, 1_000_000, {"lr": "0.1"})
    assert second.path == f"{path}:4"
    assert second.final.share == 1.0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no lines"),
        ("seed,error\n0,1\n", "no column steps"),
        ("seed,steps,throughput\n0,x,1\n", ":2: steps='x': expected a whole number"),
        ("seed,steps,throughput\n0,nan,1\n", ":2: steps='nan': expected a whole number"),
        ("run,seed,steps,throughput,task\na,0,9,1,b\na,0,9,1,c\n", "run a has two lines of 9 steps"),
        ("seed,steps,throughput\n0,0,1\n", "expected at least 1"),
        ("seed,steps,error\n0,10,1\n", "neither throughput nor unique_pairs"),
    ],
)
def test_a_bad_table_names_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(LawError) as error:
        read_csv(path)
    assert complaint in str(error.value)
