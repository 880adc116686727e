"""Lines of progress in a log."""

from __future__ import annotations

import io

from rich.console import Console

from embodichain.telemetry.loglines import LogLines


def test_a_log_gets_a_line_from_time_to_time_and_a_terminal_none() -> None:
    now = [0.0]
    log, screen = io.StringIO(), io.StringIO()
    lines = LogLines(Console(file=log), seconds=10.0, clock=lambda: now[0])
    shown = LogLines(Console(file=screen, force_terminal=True), seconds=10.0, clock=lambda: now[0])
    for second in range(25):
        now[0] = float(second)
        lines(f"step {second} of [25]")
        shown(f"step {second}")
    assert log.getvalue().splitlines() == ["step 0 of [25]", "step 10 of [25]", "step 20 of [25]"]
    assert screen.getvalue() == ""
