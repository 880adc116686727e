"""`embodichain law`: what it prints, and one line for what the user got wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embodichain.app.cli import main
from embodichain.law.fakes import Sweep, synthetic_cells

PLAN = "name: quick\nresamples: 30\npermutations: 200\nshares: [1.0]\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A plain table of a made-up sweep."""
    lines = ["run,arm,seed,steps,unique_pairs,error,parameters,unit"]
    for cell in synthetic_cells(Sweep(sizes=(400_000,), shares=(1.0,), trials=0), 0):
        end = cell.final
        lines.append(f"{cell.name},{cell.arm},{cell.seed},{end.step},{end.unique_pairs},{end.error},400000,mm")
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines) + "\n")
    (tmp_path / "plan.yaml").write_text(PLAN)
    return path


def test_a_table_becomes_a_report(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = table.parent / "report"
    arguments = ["law", "fit", "--csv", str(table), "--plan", str(table.parent / "plan.yaml"), "--out", str(out)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "Performance grows with experience throughput" in shown
    assert "36 runs, 0 left out" in shown
    assert {path.name for path in out.iterdir()} == {"report.md", "report.json", "figures"}
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "law"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["law", "fit"], "no runs given"),
        (["law", "fit", "nowhere"], "nowhere: no run there"),
        (["law", "fit", "--csv", "nowhere.csv"], "csv=nowhere.csv: cannot be read"),
        (["law", "fit", "--csv", "runs.csv", "--plan", "nowhere.yaml"], "plan=nowhere.yaml: cannot be read"),
        (["law", "fit", "--csv", "runs.csv", "--out", "runs.csv/report"], "is not a writable folder"),
        (["law", "plan", "nowhere.yaml"], "plan=nowhere.yaml: cannot be read"),
        (["law", "rehearse", "--worlds", "flat"], "--worlds flat: expected some of null"),
    ],
)
def test_what_the_user_got_wrong_is_one_line(
    table: Path,
    arguments: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(table.parent)
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert complaint in shown.err
    assert len(shown.err.strip().splitlines()) == 1
    assert not (table.parent / "law-report").exists()


def test_a_plan_is_completed_and_named(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    from embodichain.law import load_plan, plan_from

    path = table.parent / "plan.yaml"
    assert main(["law", "plan", str(path)]) == 0
    shown = capsys.readouterr().out
    assert load_plan(path).hash() in shown
    assert plan_from(yaml.safe_load(shown)) == load_plan(path)


def test_a_rehearsal_counts_verdicts(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = str(table.parent / "plan.yaml")
    assert main(["law", "rehearse", "--plan", plan, "--worlds", "null", "power", "--sweeps", "1", "--json"]) == 0
    null, power = json.loads(capsys.readouterr().out)
    assert (null["world"], null["no_effect"], power["law"]) == ("null", 1, 1)
