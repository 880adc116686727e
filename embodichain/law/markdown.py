"""Small pieces of Markdown: tables, numbers with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

NOT_IDENTIFIED = 0.1  # share of resamples at the edge of a parameter's range


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; `|` in a cell is escaped."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def value_text(value: float | None) -> str:
    """Three significant digits; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def interval_text(triple: tuple[float, float, float], at_bound: float = 0.0) -> str:
    """`estimate [low, high]`, marked where it is not identified."""
    value, low, high = triple
    text = f"{value_text(value)} [{value_text(low)}, {value_text(high)}]"
    return f"{text} *n.i.*" if at_bound > NOT_IDENTIFIED else text


def percent(share: float | None) -> str:
    """`0.5` -> `50 %`."""
    return "-" if share is None or not math.isfinite(share) else f"{100 * share:.0f} %"
