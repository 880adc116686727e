"""The report: a golden copy, figures that are drawn, points that can be traced, tables with their comparisons.

`python tests/law/test_report.py` writes the golden copy anew.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embodichain.law import Cell, Plan, Reading, SuccessRow, analyse, write_report
from embodichain.law.fakes import Sweep, synthetic_cells
from embodichain.law.markdown import value_text
from embodichain.law.report import markdown
from embodichain.law.report_data import as_data, plain
from embodichain.law.tables import Table

GOLDEN = Path(__file__).with_name("golden")
PLAN = Plan(name="golden", resamples=50, permutations=200, shares=(1.0,))


def golden_cells() -> list[Cell]:
    cells = synthetic_cells(Sweep(world="hinge", sizes=(400_000,), shares=(1.0,), trials=20), 0)
    return [replace(cells[0], status="failed", path="runs/failed"), *cells]


def rounded(value: Any) -> Any:
    """To three digits: other processors' last digits must not matter."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value


def golden_data() -> Any:
    data = as_data(analyse(golden_cells(), PLAN))
    for group in data["groups"]:  # what the optimiser ends with where nothing is identified is not golden
        group["fits"] = {name: {"curve": each["curve"]} for name, each in group["fits"].items()}
        group.pop("points")
        (group["holdout"] or {}).pop("coverage", None)
        if group["threshold"]:
            group["threshold"] = {key: group["threshold"][key] for key in ("levels_above", "levels_below", "found")}
    for criterion in data["criteria"]:
        criterion.pop("detail")
    data.pop("cells")
    return rounded(data)


def test_the_report_is_the_golden_one() -> None:
    assert golden_data() == json.loads((GOLDEN / "report.json").read_text())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(analyse(golden_cells(), PLAN), tmp_path_factory.mktemp("report"))


def test_every_file_is_there_and_every_link_leads_to_one(written: Path) -> None:
    text = written.read_text()
    assert text.startswith("# golden\n\n**Performance grows with experience throughput beyond")
    names = {"law", "success", "matched_d", "compute", "residuals"} - (
        {"compute"} if "compute.png" not in text else set()
    )
    for name in names:
        assert f"(figures/{name}.png)" in text
        assert (written.parent / "figures" / f"{name}.png").stat().st_size > 10_000
        assert (written.parent / "figures" / f"{name}.svg").read_text().startswith("<?xml")
    data = json.loads((written.parent / "report.json").read_text())
    assert data["verdict"] == "law"
    assert data["plan_hash"] == PLAN.hash()


def test_every_point_can_be_traced(written: Path) -> None:
    text = written.read_text()
    for cell in golden_cells()[1:]:
        line = next(line for line in text.splitlines() if f"`{cell.path}`" in line)
        assert cell.config_hash in line
        assert str(cell.mlflow_run_id) in line
        assert str(cell.final.step) in line
    assert "| `runs/failed` | not_done | status failed |" in text
    data = json.loads((written.parent / "report.json").read_text())
    runs = {cell["path"] for cell in data["cells"]}
    assert {point["run"] for group in data["groups"] for point in group["points"]} <= runs


def test_every_level_is_told_as_it_was_measured(written: Path) -> None:
    section = written.read_text().split("## Every level, as measured")[1].split("##")[0]
    points = [p for result in analyse(golden_cells(), PLAN).primary for p in result.group.points if p.level == 0]
    errors = [point.reading.error for point in points if point.reading.error]
    mean = math.exp(sum(map(math.log, errors)) / len(errors))
    assert f"{value_text(mean)} ({value_text(min(errors))} to {value_text(max(errors))})" in section


def test_success_is_also_told_per_task(written: Path) -> None:
    text = written.read_text()
    assert "| C, P | E | handover | pick_place | two_arm_lift |" in text
    cells = [cell for cell in golden_cells()[1:] if cell.arm == "stream" and cell.values["replay.fresh_per_step"] == 64]
    k = sum(row.k for cell in cells for row in cell.final.success if row.task == "handover")
    assert f"| {100 * k / 60:.0f} % of 60 |" in text


def test_plan_and_deviations_stand_in_the_report(written: Path) -> None:
    text = written.read_text()
    assert f"## Analysis plan `{PLAN.hash()}`" in text
    assert "| `matched_d` | `True` |" in text
    assert "runs were started without a plan" in text


def test_no_effect_is_said_plainly_with_what_could_not_be_seen() -> None:
    cells = synthetic_cells(Sweep(world="null", sizes=(400_000,), shares=(1.0,), trials=0), 0)
    text = markdown(analyse(cells, PLAN), {})
    assert "**No effect detected at this budget.**" in text
    assert "one sweep in five would not have seen a change of" in text
    assert "no effect (shown)" in text


def test_what_is_not_known_is_null() -> None:
    assert plain({"a": (float("nan"), float("inf"), 1.23456789012345)}) == {"a": [None, None, 1.23456789]}


def bound_cells(*, outcomes: bool = True, seeds: int = 2) -> list[Cell]:
    """A static set and bounds 213, 50, 10 on two tasks: the lower the bound, the more of the same forty seeds."""
    cells = []
    for rate, bound in ((0.4, None), (0.45, 213.0), (0.7, 50.0), (0.9, 10.0)):
        for seed in range(seeds):
            rows = []
            for task in ("handover", "pick_place"):
                solved = tuple((3_000_000 + i, i < 40 * rate - seed) for i in range(40))
                k = sum(ok for _, ok in solved)
                single = solved if outcomes else ()
                rows.append(SuccessRow(task=task, split="heldout_seeds", domain="default", k=k, n=40, outcomes=single))
            mode = "static" if bound is None else "stream"
            reading = Reading(step=1000, unique_pairs=4e5 / (bound or 213), error=3.0, success=tuple(rows))
            cells.append(
                Cell(
                    name=f"{mode}-{bound}-{seed}",
                    path=f"runs/{mode}-{bound}-{seed}",
                    mode=mode,
                    reuse_bound=bound,
                    reuse_max=bound or 300.0,
                    seed=seed,
                    readings=(reading,),
                )
            )
    return cells


def table_of(cells: list[Cell], **plan: object) -> Table:
    return analyse(cells, replace(Plan(kind="replay_bound", resamples=300), **plan)).tables[0]  # type: ignore[arg-type]


def test_the_replay_bound_table_compares_on_the_same_seeds(tmp_path: Path) -> None:
    table = table_of(bound_cells())
    assert table.rows == ("static set", "stream, bound 213", "stream, bound 50", "stream, bound 10")
    assert table.columns == ("handover", "pick_place", "all tasks")
    assert (table.rates["stream, bound 10", "all tasks"].n, table.rates["stream, bound 10", "all tasks"].runs) == (
        160,
        2,
    )
    best = next(c for c in table.comparisons if c.a == "stream, bound 10" and c.column == "all tasks")
    assert best.b == "static set"
    assert best.difference.method == "paired bootstrap"
    assert best.difference.difference == pytest.approx(0.5)
    assert best.difference.low > 0.3
    over_loosest = {c.a for c in table.comparisons if c.b == "stream, bound 213"}
    assert over_loosest == {"stream, bound 50", "stream, bound 10"}
    assert any("fewer training seeds than the plan's 3: static set" in note for note in table.notes)
    text = write_report(analyse(bound_cells(), Plan(name="b", kind="replay_bound", resamples=50)), tmp_path).read_text()
    assert "**Other tasks, another model and another scale**" in text
    assert "| stream, bound 10 | 96 % | 98 % | 98 % |" in text
    assert (tmp_path / "figures" / "replay_bound.png").exists()


def test_one_run_a_row_is_mcnemars_and_counts_alone_are_newcombes() -> None:
    single = table_of(bound_cells(seeds=1))
    assert any("one training seed" in note for note in single.notes)
    best = next(c for c in single.comparisons if c.a == "stream, bound 10" and c.column == "handover").difference
    assert (best.better, best.worse, best.p) == (20, 0, pytest.approx(2 * 0.5**20))
    counted = next(c for c in table_of(bound_cells(outcomes=False)).comparisons if c.column == "handover").difference
    assert counted.method == "Newcombe"


def test_unequal_iterations_and_missing_baselines_are_said() -> None:
    cells = bound_cells()
    longer = replace(cells[0], readings=(replace(cells[0].final, step=2000),))
    assert any("learner steps differ" in note for note in table_of([longer, *cells[1:]]).notes)
    table = table_of(cells[2:])
    assert {c.b for c in table.comparisons} == {"stream, bound 213"}
    assert any("no run of static set" in note for note in table.notes)


def test_domain_expansion_has_both_sides_and_each_row_with_the_one_before() -> None:
    cells = []
    for domain, inside, outside in (
        ("spatial", 26, 10),
        ("spatial+visual", 30, 17),
        ("spatial+visual+physics", 32, 22),
    ):
        rows = (
            SuccessRow(task="handover", split="heldout_seeds", domain="default", k=inside, n=40),
            SuccessRow(task="handover", split="heldout_scenes", domain="default@scenes", k=outside, n=40),
        )
        errors = {"default": 9.0 - inside / 10, "default@scenes": 12.0 - outside / 10}
        reading = Reading(step=1000, unique_pairs=5e4, error=errors["default"], errors=errors, success=rows)
        cells.append(Cell(name=domain, path=domain, values={"domain": domain}, readings=(reading,)))
    (table,) = analyse(cells, Plan(kind="domain_expansion", resamples=50)).tables
    assert table.number_names == ("held-out error, in distribution", "held-out error, out of distribution")
    assert table.numbers["spatial+visual", "held-out error, out of distribution"] == pytest.approx(10.3)
    assert [(e.a, e.column, round(e.ratio.ratio, 3)) for e in table.errors] == [
        ("spatial+visual", "held-out error, in distribution", round(6.0 / 6.4, 3)),
        ("spatial+visual+physics", "held-out error, in distribution", round(5.8 / 6.0, 3)),
        ("spatial+visual", "held-out error, out of distribution", round(10.3 / 11.0, 3)),
        ("spatial+visual+physics", "held-out error, out of distribution", round(9.8 / 10.3, 3)),
    ]
    assert table.rows == ("spatial", "spatial+visual", "spatial+visual+physics")
    assert table.columns == ("in distribution", "out of distribution")
    assert [(c.a, c.b) for c in table.comparisons[:2]] == [
        ("spatial+visual", "spatial"),
        ("spatial+visual+physics", "spatial+visual"),
    ]


def test_a_table_says_which_runs_are_no_better_than_a_model_that_ignores_its_input(tmp_path: Path) -> None:
    cells = [replace(cell, input_blind=17.6) for cell in bound_cells()]
    worse = replace(cells[0], readings=(replace(cells[0].final, error=18.0),))
    plan = Plan(name="b", kind="replay_bound", resamples=50)
    text = write_report(analyse([worse, *cells[1:]], plan), tmp_path).read_text()
    assert (
        "A model that ignores its input: 17.6 (held-out error). Runs that are not below it: static set 1 of 2." in text
    )
    assert "Every run is below it." in write_report(analyse(cells, plan), tmp_path).read_text()
    assert "ignores its input" not in write_report(analyse(bound_cells(), plan), tmp_path).read_text()


def test_actors_show_where_the_learner_stops_waiting(tmp_path: Path) -> None:
    cells = [
        Cell(
            name=str(count),
            path=str(count),
            values={"actors.count": count},
            generated_per_s=0.5 * count,
            stall_fraction=0.4 / count,
            readings=(Reading(step=100, unique_pairs=800.0 * count),),
        )
        for count in (1, 2, 4, 10)
    ]
    analysis = analyse(cells, Plan(kind="actors", row="actors.count"))
    (table,) = analysis.tables
    assert table.rows == ("1", "2", "4", "10")
    assert table.numbers["10", "episodes per minute"] == 300.0
    spread = [replace(cell, nodes=2, path=f"two/{cell.path}") for cell in cells[1:]]
    (both,) = analyse([*spread, *cells], Plan(kind="actors", row="actors.count")).tables
    assert both.rows == (*(f"{n} on 1 node" for n in (1, 2, 4, 10)), *(f"{n} on 2 nodes" for n in (2, 4, 10)))
    assert table.notes == ("the learner waits less than 5 % of its time from actors.count = 10 on",)
    write_report(analysis, tmp_path)
    assert (tmp_path / "figures" / "actors.svg").exists()


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "report.json").write_text(json.dumps(golden_data(), indent=1) + "\n")
    sys.exit(0)
