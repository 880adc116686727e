"""What a run shows while it goes: a live panel on a terminal, one compact line at a time anywhere else.

Takes plain snapshots (`Snapshot`, a dict in which everything may be missing), and draws them. It computes
nothing but the time that is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypedDict

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_BARS = "▁▂▃▄▅▆▇█"
_MISSING = "-"
_WIDE = 100  # terminal columns from which three columns of figures fit


class TaskCounts(TypedDict, total=False):
    """Episodes of one task so far; `rejected` by reason."""

    generated: int
    accepted: int
    rejected: Mapping[str, int]


class SuccessRow(TypedDict, total=False):
    """Success of one task at the latest checkpoint; `history` holds the rates of all of them, oldest first."""

    task: str
    n: int
    rate: float
    low: float
    high: float
    history: Sequence[float]


class Snapshot(TypedDict, total=False):
    """The state of a run at one moment. A missing or None entry is shown as a dash.

    Units: `*_s` seconds, `*_per_s` and `*_per_min` rates, fractions in [0, 1]. `reuse` has `max`, `mean`,
    `bound`; `heldout` has `first`, `last`, `input_blind`, `unit`; `faults` counts by kind; `elapsed_s` is
    measured by the view itself if it is missing. `message` is one line under the tables.
    """

    phase: str
    elapsed_s: float
    learner_step: int
    tasks: Mapping[str, TaskCounts]
    episodes_per_min: float
    fresh_pairs_per_s: float
    experience_throughput: float
    reuse: Mapping[str, float]
    sample_age_s: float
    steps_per_s: float
    loss_video: float
    loss_action: float
    grad_norm: float
    stall_fraction: float
    actor_idle_fraction: float
    success: Sequence[SuccessRow]
    heldout: Mapping[str, Any]
    faults: Mapping[str, int]
    message: str


class LiveView:
    """A context manager that draws snapshots: `with LiveView(console, name="run") as view: view.update(...)`.

    The bar runs on `total_steps` if given, else on `total_seconds`; on whichever is further if both are.
    """

    def __init__(
        self,
        console: Console,
        *,
        name: str,
        total_seconds: float | None = None,
        total_steps: int | None = None,
        line_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`line_seconds`: at most one line per this many seconds where `console` is no terminal."""
        self._console = console
        self._name = name
        self._total_seconds = total_seconds
        self._total_steps = total_steps
        self._line_seconds = line_seconds
        self._clock = clock
        self._start = clock()
        self._last_line = float("-inf")
        self._last_phase = ""
        self._snapshot: Snapshot = {}
        self._live = Live(console=console, refresh_per_second=2, transient=False) if console.is_terminal else None

    def __enter__(self) -> LiveView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state on the screen, and the terminal as it was."""
        if self._live is not None:
            self._live.stop()
        elif self._snapshot:
            self._print_line()

    def update(self, snapshot: Snapshot) -> None:
        """Show `snapshot`. On a terminal at once; elsewhere when `line_seconds` are over or the phase changes."""
        self._snapshot = snapshot
        if self._live is not None:
            self._live.update(self.render())
        elif self._clock() - self._last_line >= self._line_seconds or snapshot.get("phase", "") != self._last_phase:
            self._print_line()

    def render(self) -> RenderableType:
        """The panel for the latest snapshot."""
        snapshot = self._snapshot
        wide = self._console.width >= _WIDE
        has_table = bool(snapshot.get("tasks") or snapshot.get("success"))
        parts: list[RenderableType] = [
            self._header(),
            _tasks_table(snapshot, wide) if has_table else Text(),
            _figures(snapshot, wide),
        ]
        if snapshot.get("message"):
            parts += [Text(), Text(snapshot["message"], style="dim")]
        title = Text.assemble(" embodichain ", (self._name, "bold"), " ")
        return Panel(Group(*parts), title=title, title_align="left", border_style="cyan", padding=(0, 1))

    def line(self) -> str:
        """The latest snapshot as one compact line."""
        s = self._snapshot
        generated, accepted = _totals(s)
        reuse = s.get("reuse") or {}
        parts = [
            f"[{_duration(self._elapsed())}] {s.get('phase', 'starting')}",
            f"step {_integer(s.get('learner_step'))} ({_number(s.get('steps_per_s'))}/s)",
            f"episodes {accepted}/{generated} ({_number(s.get('episodes_per_min'))}/min)",
            f"E {_number(s.get('experience_throughput'))}",
            f"reuse {_number(reuse.get('max'))}/{_number(reuse.get('bound'))}",
            f"loss video {_number(s.get('loss_video'))} action {_number(s.get('loss_action'))}",
            f"stall {_percent(s.get('stall_fraction'))}",
        ]
        parts += [
            f"{row.get('task', '?')} {_percent(row.get('rate'))} (n={row.get('n', 0)})"
            for row in s.get("success") or ()
        ]
        if sum((s.get("faults") or {}).values()):
            parts.append(f"faults {sum(s['faults'].values())}")
        if s.get("message"):
            parts.append(s["message"])
        return " | ".join(parts)

    def _print_line(self) -> None:
        self._last_line = self._clock()
        self._last_phase = self._snapshot.get("phase", "")
        self._console.print(self.line(), soft_wrap=True, highlight=False, markup=False)

    def _elapsed(self) -> float:
        given = self._snapshot.get("elapsed_s")
        return self._clock() - self._start if given is None else given

    def _fraction_done(self, elapsed: float) -> float | None:
        """Share of the budget used after `elapsed` seconds, in [0, 1]; None without a budget."""
        shares = []
        if self._total_steps:
            shares.append((self._snapshot.get("learner_step") or 0) / self._total_steps)
        if self._total_seconds:
            shares.append(elapsed / self._total_seconds)
        return min(max(shares), 1.0) if shares else None

    def _header(self) -> RenderableType:
        elapsed = self._elapsed()
        done = self._fraction_done(elapsed)
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        left = _MISSING if not done else _duration(elapsed * (1 - done) / done)
        budget = f" / {_duration(self._total_seconds)}" if self._total_seconds else ""
        grid.add_row(
            Text(self._snapshot.get("phase", "starting"), style="bold cyan"),
            ProgressBar(total=1.0, completed=done, complete_style="cyan") if done is not None else Text(),
            Text.assemble(
                (_duration(elapsed) + budget, "bold"), (f"   {left} left" if done is not None else "", "dim")
            ),
        )
        return grid


def sparkline(values: Sequence[float]) -> str:
    """Rates in [0, 1] as block characters, at most the last 8."""
    return "".join(_BARS[min(int(max(v, 0.0) * len(_BARS)), len(_BARS) - 1)] for v in list(values)[-8:])


def _tasks_table(snapshot: Snapshot, wide: bool) -> Table:
    counts = snapshot.get("tasks") or {}
    scores = {row.get("task", "?"): row for row in snapshot.get("success") or ()}
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, header_style="dim")
    table.add_column("task", no_wrap=True)
    table.add_column("kept / made", justify="right", no_wrap=True)
    table.add_column("rejected", ratio=1)
    table.add_column("success [95 %]", no_wrap=True)
    table.add_column("first → last", no_wrap=True)
    for task in dict.fromkeys([*counts, *scores]):
        row = counts.get(task, TaskCounts())
        rejected = ", ".join(f"{reason} {n}" for reason, n in sorted((row.get("rejected") or {}).items()) if n)
        table.add_row(
            Text(task, style="bold"),
            f"{_integer(row.get('accepted'))} / {_integer(row.get('generated'))}",
            Text(rejected or _MISSING, style="yellow" if rejected else "dim"),
            *_success_cells(scores.get(task), wide),
        )
    return table


def _success_cells(row: SuccessRow | None, wide: bool) -> tuple[Text, Text]:
    if row is None or row.get("rate") is None:
        return Text(_MISSING, style="dim"), Text(_MISSING, style="dim")
    figure = Text.assemble(
        (_percent(row["rate"]), "bold green"),
        (f" [{100 * row.get('low', 0.0):.0f}-{100 * row.get('high', 1.0):.0f}] n={row.get('n', 0)}", "dim"),
    )
    history = list(row.get("history") or [row["rate"]])
    bars = f"{sparkline(history)} " if wide else ""
    return figure, Text(f"{bars}{100 * history[0]:.0f} → {_percent(history[-1])}")


def _figures(s: Snapshot, wide: bool) -> Table:
    """The numbers of data, learner and health, top to bottom in three columns, or two where three don't fit."""
    columns = 3 if wide else 2
    reuse, heldout = s.get("reuse") or {}, s.get("heldout") or {}
    unit = heldout.get("unit", "")
    bounded = f"{_number(reuse.get('max'))} / {_number(reuse.get('mean'))} / {_number(reuse.get('bound'))}"
    over = (reuse.get("max") or 0) > (reuse.get("bound") or float("inf"))
    faults = ", ".join(f"{kind} {n}" for kind, n in sorted((s.get("faults") or {}).items()) if n)
    data = [
        ("episodes / min", Text(_number(s.get("episodes_per_min")))),
        ("fresh pairs / s", Text(_number(s.get("fresh_pairs_per_s")))),
        ("experience / step", Text(_number(s.get("experience_throughput")))),
        ("reuse max/mean/bound", Text(bounded, style="bold red" if over else "")),
        ("sample age", Text(_duration(s.get("sample_age_s")))),
    ]
    learner = [
        ("step", Text(_integer(s.get("learner_step")))),
        ("steps / s", Text(_number(s.get("steps_per_s")))),
        ("loss video", Text(_number(s.get("loss_video")))),
        ("loss action", Text(_number(s.get("loss_action")))),
        ("gradient norm", Text(_number(s.get("grad_norm")))),
    ]
    health = [
        ("learner stall", Text(_percent(s.get("stall_fraction")))),
        ("actors idle", Text(_percent(s.get("actor_idle_fraction")))),
        ("held-out error", Text(f"{_number(heldout.get('first'))} → {_number(heldout.get('last'))} {unit}".strip())),
        ("input-blind", Text(f"{_number(heldout.get('input_blind'))} {unit}".strip())),
        ("faults", Text(faults or "none", style="yellow" if faults else "")),
    ]
    grid = Table.grid(padding=(0, 1), expand=True)
    for _ in range(columns):
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(no_wrap=True, ratio=1)
    cells = [*data, *learner, *health]
    rows = -(-len(cells) // columns)
    for row in range(rows):
        grid.add_row(*(part for cell in cells[row::rows] for part in cell))
    return grid


def _totals(snapshot: Snapshot) -> tuple[int, int]:
    rows = (snapshot.get("tasks") or {}).values()
    return sum(row.get("generated", 0) for row in rows), sum(row.get("accepted", 0) for row in rows)


def _number(value: float | None) -> str:
    """Three significant digits, without an exponent where one is not needed."""
    if value is None:
        return _MISSING
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _integer(value: int | None) -> str:
    return _MISSING if value is None else f"{value:,}"


def _percent(value: float | None) -> str:
    return _MISSING if value is None else f"{100 * value:.0f} %"


def _duration(seconds: float | None) -> str:
    """`m:ss`, or `h:mm:ss` from an hour on."""
    if seconds is None:
        return _MISSING
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
