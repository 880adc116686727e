"""One figure per table: success with intervals by row, or generation by the number of actors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embodichain.law.canvas import COLOURS, GRID, INK, MARKERS, QUIET, canvas, title
from embodichain.law.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTIONS = {
    "replay_bound": "Success per task: static set, and the stream under its reuse bounds",
    "domain_expansion": "Success and held-out error in and out of distribution, by training domain",
    "actors": "Generation, and the learner's wait for data, by the number of actors",
}


def draw_table(table: Table) -> Figure | None:
    """The figure of a table; None if it has no numbers."""
    return _generation(table) if table.name == "actors" else _rates(table)


def _rates(table: Table) -> Figure | None:
    """One panel per column, one row per row of the table: rate and Wilson interval; and every run's held-out error."""
    if not table.rates:
        return None
    errors = {name: rows for name, rows in table.measured.items() if any(rows.values())}
    count = len(table.columns) + len(errors)
    figure, panels = canvas(count, 2.0 * count + 2.2, 0.38 * len(table.rows) + 1.2, share_y=True)
    y = np.arange(len(table.rows))[::-1]
    for axes, column, colour, marker in zip(panels, table.columns, _cycle(COLOURS), _cycle(MARKERS), strict=False):
        for at, row in zip(y, table.rows, strict=True):
            rate = table.rates.get((row, column))
            if rate is None:
                continue
            axes.plot([100 * rate.low, 100 * rate.high], [at, at], color=colour, linewidth=1.6)
            axes.plot([100 * rate.k / rate.n], [at], marker, color=colour, markersize=5.5)
        axes.set_xlim(-2, 102)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.set_ylim(-0.6, len(table.rows) - 0.4)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        title(axes, column.replace("_", " "))
        axes.set_xlabel("success, %", fontsize=9, color=INK)
    for axes, (name, rows) in zip(panels[len(table.columns) :], errors.items(), strict=True):
        _draw_errors(axes, y, table, name, rows)
    panels[0].set_yticks(y, table.rows, fontsize=9)
    return figure


def _draw_errors(axes: Axes, y: np.ndarray, table: Table, name: str, errors: dict[str, list[float]]) -> None:
    """Every run's error and their mean; dashed, what a model that ignores its input has. One scale for all panels."""
    for at, row in zip(y, table.rows, strict=True):
        axes.plot(errors[row], [at] * len(errors[row]), "o", color=INK, markersize=4, alpha=0.5)
        axes.plot([table.numbers[row, name]], [at], "|", color=INK, markersize=14)
    if table.input_blind is not None and name == table.blind_error:
        axes.axvline(table.input_blind, color=QUIET, linewidth=1.2, linestyle="--")
        where = axes.get_xaxis_transform()
        axes.text(table.input_blind, 0.01, "ignores its input ", transform=where, ha="right", fontsize=7.5, color=QUIET)
    shown = [value for rows in table.measured.values() for values in rows.values() for value in values]
    axes.set_xlim(0, 1.08 * max([*shown, table.input_blind or 0.0]))
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    title(axes, name.replace(", ", ",\n"))
    axes.set_xlabel(next(iter(table.cells.values()))[0].protocol.unit or "action error", fontsize=9, color=INK)


def _generation(table: Table) -> Figure | None:
    """Left: episodes per minute. Right: share of the learner's time spent waiting."""
    if not table.rows:
        return None
    figure, panels = canvas(2, 7.6, 3.2)
    x = np.arange(len(table.rows))
    for axes, name, colour in zip(panels, table.number_names, COLOURS, strict=False):
        values = [table.numbers.get((row, name), float("nan")) for row in table.rows]
        axes.plot(x, values, marker="o", color=colour, linewidth=1.7, label=name)
        axes.set_xticks(x, table.rows)
        axes.set_ylim(bottom=0)
        title(axes, name)
    return figure


def _cycle(values: tuple[str, ...]) -> list[str]:
    return list(values) * 8
