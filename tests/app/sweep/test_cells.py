"""From a sweep's file to its cells: crossing, names, refusals before anything starts."""

from pathlib import Path

import pytest
import yaml

from embodichain.app.cli import main
from embodichain.app.config import load_config
from embodichain.app.settings import ConfigError
from embodichain.app.sweep import launch
from embodichain.app.sweep.cells import Planner, SweepPlan
from embodichain.app.sweep.config import ExpectConfig, load_sweep
from embodichain.app.sweep.expect import check_supply, expectation, pairs_per_episode, pairs_per_window
from embodichain.replay.tiling import tile

ROOT = Path(__file__).parents[3]
TINY = ROOT / "configs" / "tiny.yaml"


def write(folder: Path, **settings: object) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(
        yaml.safe_dump(
            {"name": "trial", "base": str(TINY), "output": str(folder / "runs"), **settings}, sort_keys=False
        )
    )
    return path


def plan(folder: Path, *overrides: str, **settings: object) -> SweepPlan:
    sweep = load_sweep(write(folder, **settings), overrides)
    archives = {name: folder / name for name in sweep.prepare}
    return Planner(sweep, TINY, archives).plan()


def test_arms_axes_and_seeds_are_crossed_and_every_cell_is_a_checked_run(tmp_path):
    made = plan(
        tmp_path,
        arms={
            "stream": {"grid": {"replay.max_reuse": [4, 8]}},
            "static": {"set": {"replay.mode": "static", "replay.capacity_pairs": 2000}},
        },
        grid={"size": {"small": {"learner.network.width": 64}, "large": {"learner.network.width": 128}}},
        seeds=[0, 1],
        cells=[{"name": "by_itself", "arm": "static", "set": {"learner.steps": 7}}],
    )
    assert len(made.cells) == 2 * (2 * 2 + 2 + 1)
    names = [cell.name for cell in made.cells]
    assert len(set(names)) == len(names)
    assert "stream-small-max_reuse8-s1" in names
    by_name = {cell.name: cell.config for cell in made.cells}
    assert by_name["stream-large-max_reuse4-s0"].learner.network.width == 128
    assert by_name["stream-large-max_reuse4-s0"].replay.max_reuse == 4
    assert by_name["by_itself-s1"].replay.mode == "static"
    assert (by_name["by_itself-s1"].learner.steps, by_name["by_itself-s1"].seed) == (7, 1)


def test_the_same_evaluation_seeds_in_all_cells(tmp_path):
    made = plan(tmp_path, grid={"replay.max_reuse": [2, 4]}, seeds=[0, 1])
    assert len({cell.config.evaluation for cell in made.cells}) == 1


def test_every_group_gets_the_same_trials_on_tune_seeds(tmp_path):
    made = plan(
        tmp_path,
        arms={"a": {"set": {"replay.max_reuse": 2}}, "b": {"set": {"replay.max_reuse": 4}}},
        tune={"grid": {"learner.train.lr": [0.001, 0.002]}, "set": {"learner.steps": 5}},
    )
    assert [(trial.group, trial.config.learner.train.lr) for trial in made.trials] == [
        ("a", 0.001), ("a", 0.002), ("b", 0.001), ("b", 0.002),
    ]  # fmt: skip
    assert {trial.config.evaluation.seed_range for trial in made.trials} == {"tune"}
    assert {trial.config.learner.steps for trial in made.trials} == {5}
    assert {cell.config.evaluation.seed_range for cell in made.cells} == {"eval"}


def test_an_override_of_a_run_key_is_for_all_cells(tmp_path):
    made = plan(tmp_path, "learner.steps=9", "name=other", arms={"a": {"set": {"learner.steps": 5}}})
    assert [cell.config.learner.steps for cell in made.cells] == [9]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"grid": {"evaluation.seeds": [1, 2]}}, "evaluation.seeds=2 in seeds2-s0, 1 in seeds1-s0"),
        ({"grid": {"learner.control": ["joint", "eef"]}}, "learner.control=eef in "),
        ({"grid": {"domain": ["default", "spatial"]}}, "expected evaluation.domains to be set"),
    ],
)
def test_cells_that_a_plan_could_not_compare_are_refused_before_they_cost_anything(tmp_path, settings, named):
    plan(tmp_path, **settings)  # without a plan, whoever reads the runs decides
    with pytest.raises(ConfigError) as refused:
        plan(tmp_path, plan="some.plan.yaml", **settings)
    assert named in str(refused.value)


def test_an_override_beats_every_cells_own_setting_and_is_no_axis(tmp_path):
    settings = {
        "arms": {"a": {"set": {"learner.steps": 5}}},
        "cells": [{"name": "odd", "set": {"learner.steps": 7, "replay.max_reuse": 2}}],
    }
    made = plan(tmp_path, "learner.steps=9", **settings)
    assert {cell.config.learner.steps for cell in made.cells} == {9}
    with pytest.raises(ConfigError, match=r"cells differ in learner\.steps"):
        plan(tmp_path, "learner.steps=9", grid={"learner.steps": [5, 7]})
    with pytest.raises(ConfigError, match=r"cells differ in learner\.steps"):
        plan(tmp_path, "learner.steps=9", grid={"size": {"small": {"learner.steps": 5}, "large": {"learner.steps": 7}}})


def test_the_parents_record_is_where_the_cells_are(tmp_path):
    sweep = load_sweep(
        write(tmp_path, set={"mlflow.artifacts": "/shared/files"}), ["mlflow.tracking_uri=http://x:5000"]
    )
    mlflow = launch.common(sweep, TINY).mlflow
    assert (mlflow.artifacts, mlflow.tracking_uri) == ("/shared/files", "http://x:5000")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"grid": {"replay.max_resue": [1]}}, "replay.max_resue: unknown key"),
        ({"arms": {"a": {"set": {"learner.stpes": 3}}}}, "learner.stpes: unknown key"),
        ({"gird": {"replay.max_reuse": [1]}}, "gird: unknown key"),
        ({"grid": {"replay.max_reuse": []}}, "grid.replay.max_reuse=[]"),
        ({"grid": {"replay.max_reuse": [4, 4]}}, "have the same settings"),
        ({"grid": {"replay.max_reuse": [0]}}, "replay.max_reuse=0"),
        ({"seeds": []}, "seeds=[]"),
        ({"set": {"episodes": "prepared:pool"}, "grid": {"learner.train.lr": [1.0]}}, "prepared:pool"),
        ({"set": {"seed": 5}}, "seed: a cell has its own; expected seeds="),
        ({"grid": {"seed": [1, 2]}}, "seed: a cell has its own; expected seeds="),
        ({"tune": {"grid": {"learner.train.lr": [1.0]}, "per": ["size"]}}, "tune.per=size"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml"),
        ({"set": {"storage": "elsewhere"}}, "storage=elsewhere"),
        ({"plan": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_a_wrong_sweep_is_one_line_and_nothing_is_created(tmp_path, capsys, monkeypatch, settings, named):
    monkeypatch.setattr(launch, "Sweep", None)  # should a refusal be missing, nothing starts all the same
    assert main(["sweep", str(write(tmp_path, **settings))]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert named in said
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_says_what_every_cell_means_and_starts_nothing(tmp_path, capsys):
    path = write(tmp_path, grid={"replay.max_reuse": [2, 4]}, seeds=[0])
    assert main(["sweep", str(path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "max_reuse2-s0" in said
    assert "nothing was started" in said
    assert not (tmp_path / "runs").exists()


def test_what_a_cell_means_follows_from_its_settings(tmp_path):
    rates = ExpectConfig(windows_per_s=100.0, pairs_per_s=1000.0, trial_s=1.0, overhead_s=0.0)
    common = {"learner.steps": 100, "learner.batch_windows": 10, "replay.max_reuse": 20}  # a window: 16 pairs
    made = plan(
        tmp_path,
        set=common,
        arms={
            "bound": {"set": {"replay.samples_per_insert": 20}},
            "fresh": {"set": {"replay.fresh_per_step": 40}},
            "set": {"set": {"replay.mode": "static", "replay.capacity_pairs": 3000}},
            "free": {},
        },
    )
    bound, fresh, static, free = (expectation(cell, rates) for cell in made.cells)
    # An episode of T pairs is cut into T / 16 + 1 - phase_step / 16 windows of 16 pairs, on average over the phases.
    length = pairs_per_episode({"pick_place": 1.0})
    phases = made.cells[0].config.window.phase_step / 16
    uses = 100 * 10 * length / (length / 16 + 1 - phases)
    assert [each.uses for each in (bound, fresh, static, free)] == pytest.approx([uses] * 4)
    assert (bound.pairs, fresh.pairs, static.pairs) == (pytest.approx(uses / 20), 4000, 3000)
    assert free.at_least
    assert (bound.bound, static.bound) == (20, None)
    assert bound.minutes == pytest.approx((100 * 10 / 100 + 2 / 1) / 60)  # learning, then two trials
    assert static.minutes == pytest.approx((100 * 10 / 100 + 3 + 2) / 60)  # the set is made first


def test_the_expected_length_of_a_window_is_the_mean_over_all_phases(tmp_path):
    for step in (1, 4, 16):
        (cell,) = plan(tmp_path, set={"window.phase_step": step}).cells
        window = cell.config.window
        length = round(pairs_per_episode(cell.config.active_tasks) / 16) * 16  # in whole windows, the formula is exact
        counts = [len(tile(length, window, phase)) for phase in range(0, window.pairs, step)]
        mean = length / (sum(counts) / len(counts))
        assert pairs_per_window(cell.config) == pytest.approx(mean, rel=0.03)


def test_an_archive_is_made_until_it_holds_what_is_wanted(tmp_path):
    made = plan(
        tmp_path,
        set={"episodes": "prepared:pool"},
        arms={"a": {"set": {"replay.fresh_per_step": 100}}},
        prepare={"pool": {"pairs": 5000}},
    )
    (prepare,) = made.prepare
    assert (prepare.config.archive.pairs, prepare.config.episodes) == (5000, "simulators")
    assert expectation(prepare, ExpectConfig()).pairs == 5000
    with pytest.raises(ConfigError, match=r"archive\.pairs=5000"):
        load_config(None, ["archive.pairs=5000"])  # and no archive


def test_an_archive_that_would_not_last_is_refused(tmp_path):
    made = plan(
        tmp_path,
        set={"episodes": "prepared:pool", "learner.steps": 1000},
        arms={"a": {"set": {"replay.fresh_per_step": 100}}},
        prepare={"pool": {"pairs": 5000}},
    )
    with pytest.raises(ConfigError, match=r"prepare\.pool\.pairs=5000: cell a-s0 uses about 100,000"):
        check_supply(made.cells, {"pool": 5000}, ExpectConfig())
    check_supply(made.cells, {"pool": 200_000}, ExpectConfig())
