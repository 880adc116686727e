"""What the figures of a law report share: one look, colours that stay apart for colour-blind readers, png and svg.

Draws without a display and without matplotlib's global state.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
MARKERS = ("o", "s", "^", "v", "P", "X")
INK, QUIET, GRID = "#222222", "#6B6B6B", "#E6E6E6"
DPI = 180


def canvas(columns: int, width: float, height: float = 3.7, *, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, `width` inches in all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    panels = list(figure.subplots(1, columns, squeeze=False, sharey=share_y)[0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(QUIET)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(which="both", colors=INK, labelsize=9, length=3)
    return figure, panels


def save(figure: Figure, stem: Path) -> Path:
    """Write png and svg; the svg without a date, so that equal figures are equal files."""
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(stem.with_suffix(".png"))
    return stem.with_suffix(".png")


def title(axes: Axes, text: str) -> None:
    """A panel's title, at its left edge."""
    axes.set_title(text, loc="left", fontsize=10, color=INK, fontweight="bold")


def legend(axes: Axes) -> None:
    """A legend without a frame; nothing if there is nothing to name."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, frameon=False, fontsize=8.5, labelcolor=INK, handlelength=1.6, loc="best")
