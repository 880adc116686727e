"""The sweeps that are shipped: every cell is a run that could start, and its plan is one."""

from itertools import pairwise
from pathlib import Path

import pytest

from embodichain.app.sweep.cells import Planner
from embodichain.app.sweep.config import beside, load_sweep
from embodichain.app.sweep.expect import check_supply, expectation
from embodichain.law.plan import load_plan

SWEEPS = Path(__file__).parents[3] / "configs" / "sweeps"
NAMES = ("replay_bound", "throughput", "domain_expansion", "actors")


def made(name: str, tmp_path: Path):
    sweep = load_sweep(SWEEPS / f"{name}.yaml")
    archives = {each: tmp_path / each for each in sweep.prepare}
    return sweep, Planner(sweep, beside(SWEEPS / f"{name}.yaml", sweep.base), archives).plan()


@pytest.mark.parametrize("name", NAMES)
def test_full_and_quick_have_the_same_arms_and_a_plan(name, tmp_path):
    full, cells = made(name, tmp_path)
    quick, few = made(f"{name}_quick", tmp_path)
    assert list(full.arms) == list(quick.arms)
    assert full.plan_committed
    assert load_plan(beside(SWEEPS / "x", full.plan)).kind == name
    assert (full.plan, full.name, quick.name) == (quick.plan, name, f"{name}_quick")
    for sweep, plan in ((full, cells), (quick, few)):
        check_supply(plan.cells, {each: wanted.pairs for each, wanted in sweep.prepare.items()}, sweep.expect)
    minutes = sum(expectation(cell, quick.expect).minutes for cell in (*few.prepare, *few.trials, *few.cells))
    assert minutes <= 15


def test_replay_bound_differs_in_the_use_of_data_alone(tmp_path):
    _, plan = made("replay_bound", tmp_path)
    assert len({(c.config.learner, c.config.evaluation, c.config.window, c.config.episodes) for c in plan.cells}) == 1
    assert {cell.config.replay.bound for cell in plan.cells} == {None, 213, 50, 10, 1}
    assert len(plan.cells[0].config.active_tasks) == 3
    assert len({len([t for t in plan.trials if t.group == cell.group]) for cell in plan.cells}) == 1


def test_throughput_sets_e_over_a_wide_range_at_two_sizes_and_has_its_control(tmp_path):
    _, plan = made("throughput", tmp_path)
    stream = [cell for cell in plan.cells if cell.arm == "stream"]
    levels = {cell.config.replay.fresh_per_step for cell in stream}
    assert len(levels) >= 6
    assert max(levels) / min(levels) >= 30
    assert len({cell.config.learner.network for cell in stream}) == 2
    assert len({cell.seed for cell in stream}) >= 3
    steps = stream[0].config.learner.steps
    assert {cell.config.learner.steps for cell in plan.cells} == {steps}
    shares = load_plan(SWEEPS / "throughput.plan.yaml").shares
    assert all(share * steps % stream[0].config.learner.checkpoint_steps == 0 for share in shares)
    assert stream[0].config.learner.train.lr_end == 1.0
    matched = {cell.config.replay.capacity_pairs / steps for cell in plan.cells if cell.arm == "matched_d"}
    assert matched <= levels
    # at half of a run, and at the whole of one of half the throughput, D is the same at different E
    assert levels & {level / 2 for level in levels}


@pytest.mark.parametrize(("name", "encoder"), [("domain_expansion", "dinov3"), ("domain_expansion_poses", "state")])
def test_domain_expansion_adds_stages_that_its_encoder_sees_one_by_one(name, encoder, tmp_path):
    sweep, plan = made(name, tmp_path)
    domains = list(dict.fromkeys(cell.config.domain for cell in plan.cells))
    assert all(after.startswith(f"{before}+") for before, after in pairwise(domains))
    assert ("visual" in domains[-1].split("+")) == (encoder != "state")
    assert {cell.config.encoder.name for cell in plan.cells} == {encoder}
    (scored,) = {cell.config.scored_domains for cell in plan.cells}
    assert scored[1] == f"{scored[0]}@scenes"
    assert scored[0] in domains
    assert sweep.plan_committed
    assert load_plan(beside(SWEEPS / "x", sweep.plan)).name == name
    check_supply(plan.cells, {each: wanted.pairs for each, wanted in sweep.prepare.items()}, sweep.expect)
