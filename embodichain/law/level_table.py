"""What was measured at each level of E, before any curve: a table per group, stream and matched-D side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embodichain.law.design import Group, Point, human, matched_pairs
from embodichain.law.markdown import table, value_text
from embodichain.law.paired import geometric_mean
from embodichain.law.plan import Plan
from embodichain.law.verdict import GroupResult


def level_tables(results: Sequence[GroupResult], plan: Plan) -> str:
    """Held-out error by level: geometric mean and range over runs. Markdown."""
    header = ("C, P", "E", "D", "runs", "held-out error", "matched-D", "success", "core-seconds")
    rows = [row for result in results for row in _rows(result.group, plan)]
    return (
        table(header, rows)
        + "\n\nErrors: geometric mean (lowest to highest run). Core-seconds: mean, generation included."
    )


def _rows(group: Group, plan: Plan) -> list[tuple[str, ...]]:
    pairs = matched_pairs(group, plan)
    rows: list[tuple[str, ...]] = []
    for level, throughput in enumerate(group.level_throughput()):
        mine = [point for point in group.points if point.level == level]
        other = [matched for stream, matched in pairs if stream.level == level]
        n = sum(point.n for point in mine)
        spent = [point.reading.core_seconds for point in mine if point.reading.core_seconds]
        rows.append(
            (
                group.label if level == 0 else "",
                human(float(throughput)),
                human(float(np.mean([point.reading.unique_pairs for point in mine]))),
                str(len(mine)),
                _errors(mine),
                _errors(other),
                f"{sum(point.k for point in mine)} of {n}" if n else "-",
                human(float(np.mean(spent))) if spent else "-",
            )
        )
    return rows


def _errors(points: Sequence[Point]) -> str:
    errors = [point.reading.error for point in points if point.reading.error]
    if not errors:
        return "-"
    return f"{value_text(geometric_mean(errors))} ({value_text(min(errors))} to {value_text(max(errors))})"
