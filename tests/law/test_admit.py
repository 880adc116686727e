"""Which runs count: every exclusion has a line, and what must not be compared is refused in one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from embodichain.law import Cell, LawError, Plan, Protocol, Reading, SuccessRow, load_plan, plan_from
from embodichain.law.admit import admit
from embodichain.law.fakes import Sweep, synthetic_cells

PLAN = Plan()


def runs(count: int = 4) -> list[Cell]:
    return synthetic_cells(Sweep(sizes=(400_000,), matched=False, trials=5), seed=0)[:count]


def with_final(cell: Cell, **changes: object) -> Cell:
    return replace(cell, readings=(*cell.readings[:-1], replace(cell.final, **changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reason", "spoil"),
    [
        ("not_done", lambda cell: replace(cell, status="failed")),
        ("not_done", lambda cell: replace(cell, status="stopped")),
        ("no_reading", lambda cell: replace(cell, readings=())),
        ("no_metric", lambda cell: with_final(cell, error=None)),
        ("not_finite", lambda cell: with_final(cell, error=float("nan"))),
        ("not_finite", lambda cell: with_final(cell, unique_pairs=float("inf"))),
        ("not_finite", lambda cell: with_final(cell, error=0.0)),
        ("reuse_exceeded", lambda cell: replace(cell, reuse_max=600.0)),
    ],
)
def test_a_spoilt_run_is_listed_with_its_reason(reason: str, spoil) -> None:
    first, *rest = runs()
    found = admit([spoil(first), *rest], PLAN)
    assert len(found.cells) == 3
    (left_out,) = found.exclusions
    assert left_out.reason == reason
    assert left_out.cell.path == first.path
    assert left_out.detail


def test_a_duplicate_is_listed_and_a_failed_try_does_not_hide_the_good_one() -> None:
    first, *rest = runs()
    again = replace(first, path="runs/again")
    found = admit([replace(first, status="failed", path="runs/failed"), first, again, *rest], PLAN)
    assert [each.reason for each in found.exclusions] == ["not_done", "duplicate"]
    assert first.path in found.exclusions[1].detail


def test_a_reason_that_the_plan_does_not_foresee_is_a_deviation() -> None:
    first, *rest = runs()
    found = admit([replace(first, status="failed"), *rest], replace(PLAN, exclusions=("duplicate",)))
    assert any("does not foresee" in line for line in found.deviations)


def test_runs_of_another_plan_are_a_deviation_and_so_are_runs_without_one() -> None:
    cells = [replace(cell, plan_hash=name) for cell, name in zip(runs(), (PLAN.hash(), "other", "", ""), strict=True)]
    lines = admit(cells, PLAN).deviations
    assert any("1 of 4 runs were started under another plan (other)" in line for line in lines)
    assert any("2 of 4 runs were started without a plan" in line for line in lines)


def test_code_versions_are_listed_or_refused() -> None:
    first, *rest = runs()
    cells = [replace(first, code_version="abc-dirty"), *rest]
    notes = admit(cells, PLAN).notes
    assert any("2 code versions" in note for note in notes)
    assert any("uncommitted" in note for note in notes)
    with pytest.raises(LawError, match="2 code versions"):
        admit(cells, replace(PLAN, one_code_version=True))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder", "dinov3"),
        ("seed_range", "tune"),
        ("seeds", 7),
        ("step_limit_ratio", 3.0),
        ("replan", 4),
        ("heldout_episodes", 2),
        ("unit", "rad"),
        ("domains", (("handover", "heldout_scenes", "default@scenes"),)),
    ],
)
def test_mixed_protocols_are_refused_naming_what_differs(key: str, value: object) -> None:
    first, *rest = runs()
    other = replace(first, protocol=replace(first.protocol, **{key: value}))  # type: ignore[arg-type]
    with pytest.raises(LawError, match=rf"mixed evaluation protocols: {key} is") as error:
        admit([*rest, other], PLAN)
    assert "\n" not in str(error.value)
    assert first.path in str(error.value)


def test_other_seeds_and_other_counts_are_refused() -> None:
    first, *rest = runs()
    row = first.final.success[0]
    moved = replace(row, outcomes=tuple((seed + 1, ok) for seed, ok in row.outcomes))
    with pytest.raises(LawError, match="scored on other seeds"):
        admit([*rest, with_final(first, success=(moved, *first.final.success[1:]))], PLAN)
    fewer = replace(row, k=0, n=1, outcomes=())
    with pytest.raises(LawError, match=r"on 5 seeds in .* and on 1 in"):
        admit([*rest, with_final(first, success=(fewer, *first.final.success[1:]))], PLAN)


def test_nothing_to_analyse_is_one_line() -> None:
    with pytest.raises(LawError, match="no runs to analyse"):
        admit([], PLAN)
    with pytest.raises(LawError, match=r"none of 2 runs counts; the first: .*: status failed"):
        admit([replace(cell, status="failed") for cell in runs(2)], PLAN)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("kind: law", "kind=law: expected one of throughput"),
        ("alhpa: 0.1", "alhpa: unknown key"),
        ("alpha: 0.9", "alpha=0.9: expected"),
        ("min_seeds: 0", "min_seeds=0: expected at least 1"),
        ("permutations: 20", "permutations=20: expected at least 10 / alpha = 200"),
        ("min_levels: 2", "two points are no curve"),
        ("matched_d: 1", "matched_d=1: expected bool"),
        ("shares: 1.0", "shares=1.0: expected a list"),
        ("shares: [2]", "expected numbers above 0, up to 1"),
        ("shares: [half]", "expected numbers"),
        ("exclusions: [bad_luck]", "bad_luck: expected some of"),
        ("[1", "cannot be read"),
        ("just text", "expected a mapping"),
    ],
)
def test_a_bad_plan_is_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(LawError) as error:
        load_plan(path)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_the_hash_of_a_plan_changes_with_every_key() -> None:
    assert plan_from({}).hash() == Plan().hash()
    assert plan_from({"alpha": 0.01}).hash() != Plan().hash()
    assert plan_from({"alpha": 0.05}) == Plan()


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(LawError, match="k=3 of n=2"):
        SuccessRow(task="a", split="s", domain="d", k=3, n=2)
    with pytest.raises(LawError, match="do not add up to 1 of 1"):
        SuccessRow(task="a", split="s", domain="d", k=1, n=1, outcomes=((1, False),))
    assert Reading(step=10, unique_pairs=20.0).throughput == 2.0
    with pytest.raises(LawError, match="no reading"):
        _ = Cell(name="a", path="a", protocol=Protocol()).final
