"""The live view, drawn into memory."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from embodichain.telemetry.live import LiveView, Snapshot, sparkline


def snapshot() -> Snapshot:
    return {
        "phase": "learning",
        "elapsed_s": 150.0,
        "learner_step": 4210,
        "tasks": {
            "pick_place": {"generated": 412, "accepted": 401, "rejected": {"no_success": 9, "joint_limit": 2}},
            "handover": {"generated": 10, "accepted": 10},
        },
        "episodes_per_min": 182.34,
        "experience_throughput": 17.31,
        "reuse": {"max": 12, "mean": 9.6, "bound": 16},
        "loss_action": 0.0812,
        "stall_fraction": 0.031,
        "success": [{"task": "pick_place", "n": 30, "rate": 0.63, "low": 0.46, "high": 0.78, "history": [0.0, 0.63]}],
        "heldout": {"first": 0.41, "last": 0.12, "input_blind": 0.38, "unit": "rad"},
        "faults": {"actor_killed": 1},
    }


def console(width: int = 110, terminal: bool = True) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)


def output(target: Console) -> str:
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


@pytest.mark.parametrize("width", [80, 110])
def test_panel_shows_the_figures_at_both_widths(width: int) -> None:
    target = console(width)
    with LiveView(target, name="quickstart", total_seconds=600) as view:
        view.update(snapshot())
        target.print(view.render())
    text = output(target)
    wanted = (
        "quickstart",
        "learning",
        "401 / 412",
        "63 %",
        "[46-78] n=30",
        "12 / 9.6 / 16",
        "4,210",
        "0.41 → 0.12 rad",
    )
    for part in (*wanted, "2:30 / 10:00", "7:30 left", "0.0812", "3 %"):
        assert part in text
    assert max(len(line) for line in text.splitlines()) <= width + 12  # cursor controls aside


def test_an_empty_snapshot_is_drawn_with_dashes() -> None:
    target = console()
    view = LiveView(target, name="run")
    target.print(view.render())
    assert "starting" in output(target)
    assert "-" in output(target)
    assert "left" not in output(target)


def test_budget_is_whichever_share_is_further() -> None:
    target = console()
    view = LiveView(target, name="run", total_seconds=600, total_steps=5000)
    view.update({"elapsed_s": 60.0, "learner_step": 4000})
    target.print(view.render())
    assert "0:15 left" in output(target)  # 80 % of the steps after 60 s


def test_off_a_terminal_it_prints_a_line_every_ten_seconds_and_at_a_phase_change() -> None:
    now = [0.0]
    target = console(terminal=False)
    with LiveView(target, name="run", clock=lambda: now[0]) as view:
        for second in range(25):
            now[0] = float(second)
            view.update(snapshot())
        view.update({**snapshot(), "phase": "evaluating"})
    lines = output(target).splitlines()
    assert [line.split(" |")[0] for line in lines] == [
        *["[2:30] learning"] * 3,
        *["[2:30] evaluating"] * 2,
    ]
    for part in ("episodes 411/422", "E 17.3", "reuse 12/16", "pick_place 63 % (n=30)", "faults 1"):
        assert part in lines[0]
    assert "\x1b" not in output(target)


def test_sparkline_spans_zero_to_one() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert len(sparkline([0.1] * 100)) == 8
