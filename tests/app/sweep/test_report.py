"""What a sweep's report says: the law library's analysis of all cells, and how the sweep ran."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from embodichain.app.config import save_config
from embodichain.app.sweep import report
from embodichain.app.sweep.cells import Cell, Planner
from embodichain.app.sweep.config import SweepConfig, load_sweep
from embodichain.app.sweep.folder import Entry, Journal, SweepFolder

ROOT = Path(__file__).parents[3]


def finished(cell: Cell, folder: SweepFolder) -> dict[str, Any]:
    """A run's summary and configuration as `embodichain run` leaves them, with made-up figures."""
    success = {"task": "pick_place", "split": "heldout_seeds", "domain": "default", "n": 4, "rate": 0.5, "left_out": 0}
    success["outcomes"] = {str(3_000_000 + i): i % 2 == 0 for i in range(4)}
    bound = cell.config.replay.bound
    summary = {
        "name": cell.name, "status": "done", "model": "clwm", "encoder": "state", "parameters": 1000,
        "learner_steps": 40, "experience_throughput": 10.0,
        "reuse": {"bound": bound, "max": float(bound or 9), "mean": 2.0},
        "heldout_error": {"first": 0.2, "last": 0.1, "input_blind": 0.3, "unit": "rad"}, "mlflow_run_id": "child",
        "readings": [{
            "step": 40, "share": 1.0, "unique_pairs": 400, "pair_uses": 800, "error": 0.1, "success": [success],
            "core_seconds": {"learner": 1.0, "simulators": 2.0},
        }],
        "config_hash": cell.config.hash(), "code_version": "abc", "wall_seconds": 10.0,
        "episodes": {"generated": 5}, "stall_fraction": 0.0, "core_seconds": {"learner": 1.0, "simulators": 2.0},
    }  # fmt: skip
    run = folder.run(cell)
    run.mkdir(parents=True)
    (run / "summary.json").write_text(json.dumps(summary))
    save_config(cell.config, run / "config.yaml")
    folder.write_cell(cell, "plan")
    return summary


@pytest.fixture
def sweep(tmp_path: Path) -> tuple[SweepFolder, SweepConfig, tuple[Cell, ...]]:
    (tmp_path / "plan.yaml").write_text("name: bounds\nkind: replay_bound\nmetric: success\nmin_seeds: 1\n")
    settings = {
        "name": "bounds", "base": str(ROOT / "configs" / "tiny.yaml"), "output": str(tmp_path / "runs"),
        "purpose": "Which bound?", "plan": "plan.yaml", "grid": {"replay.max_reuse": [2, 4, 8]},
    }  # fmt: skip
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    folder = SweepFolder.create(load_sweep(path), path)
    config = load_sweep(folder.sweep)
    return folder, config, Planner(config, folder.base, {}).plan().cells


def test_the_report_analyses_all_cells_and_says_how_the_sweep_ran(sweep):
    folder, config, cells = sweep
    results = [(cell, finished(cell, folder)) for cell in cells[:2]]
    journal = Journal(starts=3, wall_seconds=100.0, entries={cell.name: Entry(seconds=45.0) for cell in cells[:2]})
    report.write(folder, config, journal, results, {cells[2].name: "exit code 1: broken"})
    text = folder.report.read_text()
    assert "stream, bound 4" in text  # the table of the law library
    assert "2 of 3 cells finished, in 3 start(s)" in text
    assert f"`{cells[2].name}`: exit code 1: broken" in text
    assert "100 s" in text or "1.7 min" in text
    assert json.loads((folder.path / "report.json").read_text())
    assert cells[2].name in (folder.path / "report.json").read_text()  # the failed one is in the analysis too


def test_the_winner_is_the_plans(tmp_path):
    folder = SweepFolder(tmp_path)
    results = [
        (Cell(name="a"), {"heldout_error": {"last": 0.1}, "success": [{"rate": 0.5}]}),
        (Cell(name="b"), {"heldout_error": {"last": 0.3}, "success": [{"rate": 0.9}]}),
        (Cell(name="c"), {"heldout_error": {"last": 0.2}, "success": [{"rate": 0.9}]}),
    ]
    assert report.winner(folder, results)[0].name == "a"
    (tmp_path / "plan.yaml").write_text("{kind: replay_bound, metric: success}")
    assert report.winner(folder, results)[0].name == "c"


def test_runs_that_allow_no_analysis_leave_a_report_that_says_why(sweep):
    folder, config, cells = sweep
    results = [(cell, finished(cell, folder)) for cell in cells[:2]]
    summary = folder.run(cells[0]) / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "encoder": "dinov3"}))  # another protocol
    report.write(folder, config, Journal(starts=1), results, {})
    text = folder.report.read_text()
    assert "No analysis:" in text
    assert "## How the sweep ran" in text
