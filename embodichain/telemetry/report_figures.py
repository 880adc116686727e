"""The figures of the report: one look for all of them, drawn without a display and without global state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodichain.telemetry.metrics import MetricPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Points = Mapping[str, Sequence[MetricPoint]]

# Okabe and Ito's colours, which stay apart for colour-blind readers.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_INK, _QUIET, _GRID = "#222222", "#777777", "#E6E6E6"
_SIZE = (7.2, 3.6)
_SMOOTH = 0.75  # weight of the past in the smoothed line of a noisy curve


def draw_figures(folder: Path, summary: Mapping[str, Any], points: Points) -> dict[str, Path]:
    """Draw every figure that has data into `folder`.

    Returns:
        caption -> PNG path, in the order of the report.
    """
    figures: tuple[tuple[str, str, Callable[[Path, Mapping[str, Any], Points], bool]], ...] = (
        ("Success per task, with 95 % intervals", "success.png", _draw_success),
        ("Held-out action error, beside a model that ignores its input", "heldout_error.png", _draw_heldout),
        ("Losses", "losses.png", _draw_losses),
        ("Experience throughput and reuse", "experience.png", _draw_experience),
        ("Generation", "generation.png", _draw_generation),
    )
    drawn = {}
    for caption, name, draw in figures:
        if draw(folder / name, summary, points):
            drawn[caption] = folder / name
    return drawn


def _draw_success(path: Path, summary: Mapping[str, Any], points: Points) -> bool:
    """One line per task, split and domain, over learner steps, with its interval as a band."""
    rates = [name for name in sorted(points) if name.startswith("success/") and name.endswith("/rate")]
    series = [name.removesuffix("/rate") for name in rates if points[name]]
    if not series:
        return False
    figure, (axes,) = _canvas(1, "Success on held-out seeds")
    labels = []
    for index, name in enumerate(series):
        colour = _COLOURS[index % len(_COLOURS)]
        steps, rate = _xy(points[f"{name}/rate"], 100.0)
        axes.plot(steps, rate, color=colour, marker="o", markersize=4.5, linewidth=1.8, clip_on=False, zorder=3)
        low, high = _xy(points.get(f"{name}/low", ()), 100.0), _xy(points.get(f"{name}/high", ()), 100.0)
        if low[0] == high[0] == steps:
            axes.fill_between(steps, low[1], high[1], color=colour, alpha=0.13, linewidth=0)
        labels.append((steps[-1], rate[-1], _series_label(name), colour))
    axes.set_ylim(0, 100)
    axes.set_ylabel("success, %")
    _label_ends(axes, labels)
    return _save(figure, path)


def _draw_heldout(path: Path, summary: Mapping[str, Any], points: Points) -> bool:
    error = points.get("heldout/action_error") or ()
    if not error:
        return False
    unit = (summary.get("heldout_error") or {}).get("unit", "rad")
    figure, (axes,) = _canvas(1, "Action error on the fixed held-out set")
    steps, values = _xy(error)
    axes.plot(steps, values, color=_COLOURS[0], marker="o", markersize=4.5, linewidth=1.8, zorder=3)
    labels = [(steps[-1], values[-1], "this model", _COLOURS[0])]
    blind_points = points.get("heldout/input_blind_error") or ()
    blind = blind_points[-1].value if blind_points else (summary.get("heldout_error") or {}).get("input_blind")
    top = max(values)
    if blind is not None:
        axes.axhline(blind, color=_QUIET, linewidth=1.2, linestyle=(0, (5, 3)))
        axes.axhline(blind / 2, color=_QUIET, linewidth=0.9, linestyle=(0, (1, 3)))
        labels += [(steps[-1], blind, "input-blind", _QUIET), (steps[-1], blind / 2, "half of it", _QUIET)]
        top = max(top, blind)
    axes.set_ylim(0, 1.08 * top)
    axes.set_ylabel(f"error, {unit}")
    _label_ends(axes, labels)
    return _save(figure, path)


def _draw_losses(path: Path, summary: Mapping[str, Any], points: Points) -> bool:
    names = {"video": "learner/loss_video", "action": "learner/loss_action"}
    have = {label: points[name] for label, name in names.items() if points.get(name)}
    if not have and points.get("learner/loss"):
        have = {"total": points["learner/loss"]}
    if not have:
        return False
    figure, panels = _canvas(len(have), "Flow-matching losses")
    for axes, (label, values), colour in zip(panels, have.items(), _COLOURS, strict=False):
        steps, loss = _xy(values)
        axes.plot(steps, loss, color=colour, alpha=0.25, linewidth=1.0)
        axes.plot(steps, _smoothed(loss), color=colour, linewidth=1.8)
        axes.set_title(label, loc="left", fontsize=9.5, color=_QUIET)
        if min(loss) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    return _save(figure, path)


def _draw_experience(path: Path, summary: Mapping[str, Any], points: Points) -> bool:
    throughput = points.get("replay/experience_throughput") or ()
    if not throughput:
        return False
    figure, (left, right) = _canvas(2, "Experience throughput and reuse")
    left.plot(*_xy(throughput), color=_COLOURS[0], linewidth=1.8)
    left.set_ylim(bottom=0)
    left.set_title("fresh state-action pairs per learner step", loc="left", fontsize=9.5, color=_QUIET)
    labels = []
    for name, label, colour in (("max", "most", _COLOURS[1]), ("mean", "mean", _COLOURS[2])):
        values = points.get(f"replay/reuse_{name}") or ()
        if values:
            steps, reuse = _xy(values)
            right.plot(steps, reuse, color=colour, linewidth=1.8)
            labels.append((steps[-1], reuse[-1], label, colour))
    bound = (summary.get("reuse") or {}).get("bound")
    if bound is not None:
        right.axhline(bound, color=_QUIET, linewidth=1.2, linestyle=(0, (5, 3)))
        labels.append((throughput[-1].step, bound, "bound", _QUIET))
        right.set_ylim(0, 1.12 * bound)
    right.set_title("uses of one pair", loc="left", fontsize=9.5, color=_QUIET)
    if labels:
        _label_ends(right, labels)
    return _save(figure, path)


def _draw_generation(path: Path, summary: Mapping[str, Any], points: Points) -> bool:
    rate = points.get("generation/episodes_per_min") or ()
    if not rate:
        return False
    idle = points.get("generation/actor_idle_fraction") or ()
    stall = points.get("learner/stall_fraction") or ()
    figure, panels = _canvas(2 if idle or stall else 1, "Generation")
    panels[0].plot(*_xy(rate), color=_COLOURS[0], linewidth=1.8)
    panels[0].set_ylim(bottom=0)
    panels[0].set_title("verified episodes per minute", loc="left", fontsize=9.5, color=_QUIET)
    labels = []
    for values, label, colour in ((idle, "actors idle", _COLOURS[1]), (stall, "learner stalled", _COLOURS[2])):
        if values:
            steps, share = _xy(values, 100.0)
            panels[1].plot(steps, share, color=colour, linewidth=1.8)
            labels.append((steps[-1], share[-1], label, colour))
    if labels:
        panels[1].set_ylim(0, 100)
        panels[1].set_title("waiting, % of time", loc="left", fontsize=9.5, color=_QUIET)
        _label_ends(panels[1], labels)
    return _save(figure, path)


def _canvas(columns: int, title: str) -> tuple[Figure, list[Axes]]:
    """A titled figure with `columns` panels over learner steps."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=_SIZE, dpi=160, layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold", color=_INK)
    panels = list(figure.subplots(1, columns, squeeze=False)[0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_QUIET)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(which="both", colors=_INK, labelsize=8.5, length=3)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
        axes.set_xlabel("learner step", fontsize=9, color=_INK)
        axes.yaxis.label.set_size(9)
    return figure, panels


def _label_ends(axes: Axes, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Write (x, y, text, colour) labels right of the panel, pushed apart so that none covers another."""
    bottom, top = axes.get_ylim()
    gap = 0.075 * (top - bottom)
    free = bottom - gap
    heights = []
    for _, y, _, _ in sorted(labels, key=lambda item: item[1]):
        free = max(y, free + gap)
        heights.append(free)
    overshoot = max(0.0, heights[-1] - top)
    for (_, _, text, colour), y in zip(sorted(labels, key=lambda item: item[1]), heights, strict=True):
        axes.annotate(
            text,
            xy=(1.0, y - overshoot),
            xycoords=axes.get_yaxis_transform(),
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            fontsize=8.5,
            va="center",
            annotation_clip=False,
        )


def _series_label(name: str) -> str:
    """`success/pick_place/heldout_seeds/default` -> `pick_place` (and the domain where it is not default)."""
    _, task, *rest = name.split("/")
    domain = rest[-1] if rest else "default"
    return task if domain == "default" else f"{task}, {domain}"


def _xy(points: Sequence[MetricPoint], scale: float = 1.0) -> tuple[list[float], list[float]]:
    return [float(p.step) for p in points], [scale * p.value for p in points]


def _smoothed(values: Sequence[float]) -> list[float]:
    """Exponential average, unbiased at the start: divided by the weight seen so far."""
    total, weight, result = 0.0, 0.0, []
    for value in values:
        total = _SMOOTH * total + (1 - _SMOOTH) * value
        weight = _SMOOTH * weight + (1 - _SMOOTH)
        result.append(total / weight)
    return result


def _save(figure: Figure, path: Path) -> bool:
    figure.savefig(path)
    return True
