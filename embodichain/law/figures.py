"""The figures of a law report. Takes an `Analysis`, hands on caption -> file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embodichain.contracts import wilson_interval
from embodichain.law.analysis import Analysis
from embodichain.law.canvas import COLOURS, GRID, INK, MARKERS, QUIET, canvas, legend, save, title
from embodichain.law.design import Group, human
from embodichain.law.table_figures import CAPTIONS, draw_table
from embodichain.law.verdict import GroupResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

APART = 1.4  # factor between labelled levels of E; closer ones would overlap
JITTER = 0.012  # of log10 E, so that runs of one level do not hide each other


def draw_figures(analysis: Analysis, folder: Path) -> dict[str, Path]:
    """Draw every figure that has data into `folder`, as png and svg; returns caption -> png, in the report's order."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, Path] = {}

    def add(name: str, caption: str, figure: Figure | None) -> None:
        if figure is not None:
            drawn[caption] = save(figure, folder / name)

    unit = error_unit(analysis)
    error, success = (_of(analysis.results, metric) for metric in ("error", "success"))
    add("law", "Held-out error against experience throughput, at equal gradient steps", _law(error, unit))
    add("success", "Closed-loop success against experience throughput, at equal gradient steps", _success(success))
    add("matched_d", "Stream minus matched-D, at equal data and steps", _matched(analysis))
    add("compute", "The same error at equal core-seconds, generation included", _law(_of(analysis.by_compute), unit))
    add("residuals", "Residuals, and runs predicted by the other half", _residuals(error or success, unit))
    for number, table in enumerate(analysis.tables):
        suffix = f"_{number + 1}" if len(analysis.tables) > 1 else ""
        add(f"{table.name}{suffix}", CAPTIONS[table.name], draw_table(table))
    return drawn


def error_unit(analysis: Analysis) -> str:
    """Unit of the held-out error."""
    return analysis.admitted.cells[0].protocol.unit or "error units"


def _of(results: Sequence[GroupResult], metric: str = "") -> list[GroupResult]:
    return [result for result in results if metric in ("", result.metric) and result.group.points]


def _panels(results: Sequence[GroupResult]) -> dict[str, list[GroupResult]]:
    """Network size -> its groups, smallest network first."""
    ordered = sorted(results, key=lambda result: (result.group.parameters or 0, result.group.budget))
    panels: dict[str, list[GroupResult]] = {}
    for result in ordered:
        panels.setdefault(result.group.size_label, []).append(result)
    return panels


def _law(results: Sequence[GroupResult], unit: str) -> Figure | None:
    """Log-log: runs, curve with its band, E*, and the matched-D arm beside it; one panel per network size."""
    if not results:
        return None
    panels = _panels(results)
    figure, all_axes = canvas(len(panels), 4.3 * len(panels) + 0.4, share_y=True)
    for axes, (name, mine) in zip(all_axes, panels.items(), strict=True):
        for index, result in enumerate(mine):
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            group = result.group
            x, y = _scattered(group), [float(point.reading.error or math.nan) for point in group.points]
            axes.plot(x, y, marker, color=colour, markersize=4.5, alpha=0.85, zorder=4, label=_budget(group))
            _draw_curve(axes, result, colour, 1.0, index)
            if group.matched:
                x = [point.reading.throughput * 10 ** (2.5 * JITTER) for point in group.matched]
                y = [float(point.reading.error or math.nan) for point in group.matched]
                style: dict[str, Any] = {"markerfacecolor": "white", "markersize": 4.2, "zorder": 3}
                axes.plot(x, y, "D", color=colour, **style)
        if any(result.group.matched for result in mine):
            axes.plot(
                [], [], "D", color=QUIET, markerfacecolor="white", markersize=4.2, label="matched-D, same colours"
            )
        axes.set_yscale("log")
        _log_axis(axes, mine)
        _plain_log_ticks(axes)
        title(axes, name)
        legend(axes)
    all_axes[0].set_ylabel(f"held-out action error, {unit}", fontsize=9.5, color=INK)
    return figure


def _success(results: Sequence[GroupResult]) -> Figure | None:
    """Rates with Wilson intervals per level, and the curve; one panel per network size."""
    if not results:
        return None
    panels = _panels(results)
    figure, all_axes = canvas(len(panels), 4.3 * len(panels) + 0.4, share_y=True)
    for axes, (name, mine) in zip(all_axes, panels.items(), strict=True):
        for index, result in enumerate(mine):
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            group = result.group
            rates = [100 * point.k / point.n for point in group.points]
            axes.plot(_scattered(group), rates, marker, color=colour, markersize=3.6, alpha=0.4, zorder=3)
            centre, middle, low, high = _pooled(group)
            error = [np.maximum(0, middle - low), np.maximum(0, high - middle)]
            style: dict[str, Any] = {"markersize": 5.5, "elinewidth": 1.2, "zorder": 4}
            axes.errorbar(centre, middle, error, fmt=marker, color=colour, label=_budget(group), **style)
            _draw_curve(axes, result, colour, 100.0, index)
        axes.set_ylim(-2, 102)
        _log_axis(axes, mine)
        title(axes, name)
        legend(axes)
    all_axes[0].set_ylabel("success on held-out seeds, %", fontsize=9.5, color=INK)
    return figure


def _draw_curve(axes: Axes, result: GroupResult, colour: str, scale: float, index: int) -> None:
    """The curve of the conclusion: dotted and flat where no effect was found; none where runs are too few."""
    if result.comparison is None or result.short:
        return
    fitted = result.comparison.fits[result.preferred]
    moved = result.preferred != "none"
    axes.fill_between(fitted.grid, scale * fitted.low, scale * fitted.high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(fitted.grid, scale * fitted.curve, color=colour, linewidth=1.7, linestyle="-" if moved else ":", zorder=2)
    if result.has_threshold:
        found = result.comparison.threshold
        assert found is not None
        axes.axvspan(found.low, found.high, color=colour, alpha=0.07, linewidth=0)
        axes.axvline(found.estimate, color=colour, linewidth=1.1, linestyle=(0, (5, 3)))
        axes.annotate(
            f"E* {found.estimate:.2g} [{found.low:.2g}, {found.high:.2g}]",
            (found.estimate, 0.985 - 0.055 * index),
            xycoords=axes.get_xaxis_transform(),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=8.5,
            color=colour,
            va="top",
        )


def _matched(analysis: Analysis) -> Figure | None:
    """Paired differences per level of E, with intervals, around zero and the plan's margin."""
    if analysis.matched is None:
        return None
    levels = analysis.matched.by_level
    success = analysis.plan.metric == "success"
    figure, (axes,) = canvas(1, 6.4, 0.24 * len(levels) + 1.2)
    rows = np.arange(len(levels))[::-1]
    mean = np.array([each.mean for each in levels])
    low, high = (np.clip([getattr(each, key) for each in levels], -9, 9) for key in ("low", "high"))
    scale = (lambda x: 100 * x) if success else (lambda x: 100 * (np.exp(x) - 1))
    margin = scale(np.array([-analysis.plan.equivalence, analysis.plan.equivalence]))
    axes.axvspan(margin[0], margin[1], color=GRID, linewidth=0, label="differences that would not matter")
    axes.axvline(0, color=QUIET, linewidth=1)
    for y, m, a, b in zip(rows, scale(mean), scale(low), scale(high), strict=True):
        axes.plot([a, b], [y, y], color=COLOURS[0], linewidth=1.4)
        axes.plot([m], [y], "o", color=COLOURS[0], markersize=4.5)
    overall = analysis.matched.overall
    ends = scale(np.array([overall.low, overall.high]))
    axes.axvspan(ends[0], ends[1], color=COLOURS[1], alpha=0.25, linewidth=0, label="all pairs, interval")
    limit = 1.2 * max(np.abs(scale(mean)).max(), np.abs(ends).max(), np.abs(margin).max())
    axes.set_xlim(-min(limit, 95) if not success else -limit, limit)
    axes.set_yticks(rows, [each.label for each in levels], fontsize=8)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    better = "right: the stream does better" if success else "left: the stream does better"
    axes.set_xlabel(f"{'success' if success else 'error'}, stream minus matched-D, % ({better})", fontsize=9)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, fontsize=8.5)
    return figure


def _residuals(results: Sequence[GroupResult], unit: str) -> Figure | None:
    """Left: residuals of the shown curve over E. Right: held-out runs, predicted against measured."""
    fitted = [result for result in results if result.comparison is not None]
    if not fitted:
        return None
    figure, (left, right) = canvas(2, 9.0, 3.9 + 0.1 * len(fitted))
    success = fitted[0].metric == "success"
    scale = 100.0 if success else 1.0
    seen: list[float] = []
    for index, result in enumerate(sorted(fitted, key=lambda r: (r.group.parameters or 0, r.group.budget))):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        assert result.comparison is not None
        residuals = result.comparison.fits[result.preferred].residuals
        shown = residuals if success else 100 * residuals
        x = np.array(_scattered(result.group)) * 10 ** (JITTER * 3 * (index - (len(fitted) - 1) / 2))
        left.plot(x, shown, marker, color=colour, markersize=4.5, alpha=0.85)
        if result.holdout is None or not result.holdout.possible:
            continue
        low, high = scale * result.holdout.low, scale * result.holdout.high
        values = [p.k / p.n if success else float(p.reading.error or math.nan) for p in result.group.points]
        measured = scale * np.array(values)
        away = np.isfinite(low)
        middle = (low + high) / 2 if success else np.sqrt(low * high)
        error = [(middle - low)[away], (high - middle)[away]]
        label = f"{result.group.label}: {100 * result.holdout.coverage:.0f} % inside"
        style: dict[str, Any] = {"markersize": 4, "elinewidth": 0.9, "alpha": 0.85}
        right.errorbar(measured[away], middle[away], error, fmt=marker, color=colour, label=label, **style)
        seen += [*low[away], *high[away], *measured[away]]
    left.axhline(0, color=QUIET, linewidth=1)
    _log_axis(left, fitted)
    left.set_ylabel("residual, standard deviations" if success else "residual, % of the error", fontsize=9.5)
    title(left, "around the curve")
    title(right, "runs predicted by the other half")
    if seen:
        right.plot([min(seen), max(seen)], [min(seen), max(seen)], color=QUIET, linewidth=1)
    if not success:
        right.set_xscale("log")
        right.set_yscale("log")
        _plain_log_ticks(right, both=True)
    right.set_xlabel("measured, %" if success else f"measured, {unit}", fontsize=9.5)
    right.set_ylabel("predicted, with its interval", fontsize=9.5)
    left.set_xlabel("E, unique pairs per step", fontsize=9.5)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    return figure


def _scattered(group: Group) -> list[float]:
    """E of each point, moved apart a little by its turn within the level."""
    turn: dict[int, int] = {}
    xs = []
    for point in group.points:
        number = turn.setdefault(point.level, 0)
        turn[point.level] += 1
        xs.append(point.reading.throughput * 10 ** (JITTER * (number % 5 - 1)))
    return xs


def _pooled(group: Group) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Per level: E, and the pooled rate with its Wilson interval, %."""
    rows = []
    for level, throughput in enumerate(group.level_throughput()):
        mine = [point for point in group.points if point.level == level]
        k, n = sum(point.k for point in mine), sum(point.n for point in mine)
        rows.append((throughput, 100 * k / n, *(100 * end for end in wilson_interval(k, n))))
    centre, middle, low, high = np.array(rows).T
    return centre, middle, low, high


def _budget(group: Group) -> str:
    return f"{human(group.budget)} {'steps' if group.view == 'steps' else 'core-s'}"


def _log_axis(axes: Axes, results: Sequence[GroupResult]) -> None:
    """Log E, with a tick at every level of the largest budget that is not too close to the one before."""
    axes.set_xscale("log")
    most = max(results, key=lambda result: (result.group.levels >= 3, result.group.budget))
    ticks: list[float] = []
    for throughput in most.group.level_throughput():
        if not ticks or throughput > APART * ticks[-1]:
            ticks.append(float(throughput))
    axes.set_xticks(ticks, [_short(x) for x in ticks])
    axes.minorticks_off()
    axes.set_xlabel("experience throughput E, unique pairs per step", fontsize=9.5, color=INK)


def _short(throughput: float) -> str:
    return f"{throughput:.2g}" if throughput < 100 else human(throughput)


def _plain_log_ticks(axes: Axes, *, both: bool = False) -> None:
    """Numbers as people write them, enough of them also where less than a decade is shown."""
    from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

    for axis in (axes.yaxis, axes.xaxis) if both else (axes.yaxis,):
        low, high = axis.get_view_interval()
        few: Locator = (
            MaxNLocator(5) if high < 3 * low else LogLocator(subs=(1, 2, 5) if high > 20 * low else (1, 2, 3, 5))
        )
        axis.set_major_locator(few)
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
