"""Rows of the task catalogue: kept one by one, measured again only where that says something new."""

from pathlib import Path

from benchmarks import catalogue
from tasks.session import sim_hash


def row(name: str, n: int = 200, trials: int = 50, simulator: str | None = None) -> dict[str, object]:
    return {"name": name, "n": n, "trials": trials, "sim_hash": simulator or sim_hash(name), "date": "2026-11-25"}


def test_a_row_stands_until_its_task_is_measured_again(tmp_path: Path) -> None:
    catalogue.keep(row("handover"), "one", tmp_path)
    catalogue.keep(row("pick_place"), "two", tmp_path)
    path = catalogue.keep(row("handover", n=300), "three", tmp_path)
    assert path.parent == tmp_path
    known = catalogue.measured(tmp_path)
    assert {name: each["n"] for name, each in known.items()} == {"pick_place": 200, "handover": 300}
    assert list(known) == ["pick_place", "handover"], "in the catalogue's order"


def test_what_lacks_is_what_today_s_simulator_was_not_measured_with(tmp_path: Path) -> None:
    tasks = ["pick_place", "handover", "two_arm_lift", "push_bar"]
    assert catalogue.lacking(tasks, 200, 50, tmp_path) == tasks
    catalogue.keep(row("pick_place"), "", tmp_path)
    catalogue.keep(row("handover", simulator="0" * 16), "", tmp_path)
    catalogue.keep(row("two_arm_lift", trials=10), "", tmp_path)
    assert catalogue.lacking(tasks, 200, 50, tmp_path) == ["handover", "two_arm_lift", "push_bar"]
    assert catalogue.lacking(["pick_place"], 500, 50, tmp_path) == ["pick_place"]
