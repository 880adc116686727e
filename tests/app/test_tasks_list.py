"""`embodichain tasks list` as a person reads it, in a narrow terminal and in a wide one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from embodichain.app.cli import main
from tasks import registry
from tasks.registry import task_info, task_names


def shown(columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["tasks", "list"]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", [80, 200])
def test_every_task_is_one_line_that_fits_and_nothing_is_cut(columns, monkeypatch, capsys):
    lines = shown(columns, monkeypatch, capsys)
    assert max(map(len, lines)) <= columns
    assert not any("…" in line for line in lines)
    head, *rows = lines[: 1 + len(task_names())]
    assert head.split()[:5] == ["name", "split", "arms", "skills", "steps"]
    assert ("description" in head) == (columns == 200)
    for name, row in zip(task_names(), rows, strict=True):
        info = task_info(name)
        wanted = [name, info.split.removesuffix("out"), info.arms, str(len(info.segments)), str(info.horizon)]
        assert row.split()[:5] == wanted
        assert (info.description in row) == (columns == 200)


@pytest.mark.parametrize("columns", [80, 200])
def test_families_are_a_line_below_which_names_those_that_differ(columns, monkeypatch, capsys):
    count = len(task_names())
    after = 1 + count
    assert shown(columns, monkeypatch, capsys)[after] == f"{count} families, each named as its task"

    def regrouped(name: str):
        info = task_info(name)
        family = {"handover": "pick_place", "push_bar": "pushing", "turn_wheel": "pushing"}.get(name, info.family)
        return replace(info, family=family)

    monkeypatch.setattr(registry, "task_info", regrouped)
    said = " ".join(" ".join(shown(columns, monkeypatch, capsys)[after : after + 2]).split())
    wanted = f"{count - 2} families, each named as its task, but handover: pick_place; push_bar, turn_wheel: pushing"
    assert said.startswith(wanted)
