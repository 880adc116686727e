"""The report of a finished run: `report.md` and its figures, from the summary and the metric history.

Takes the `summary.json` dict and the points of each metric, hands on files in one folder. Figures are drawn
only from data that is there; the text says which are missing. Matplotlib is imported when a figure is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodichain.telemetry.metrics import MetricPoint, finite, unit_of
from embodichain.telemetry.report_figures import draw_figures

if TYPE_CHECKING:
    History = Mapping[str, Sequence[MetricPoint]]


def write_report(
    folder: str | Path,
    summary: Mapping[str, Any],
    history: History,
    *,
    videos: Sequence[str | Path] = (),
) -> Path:
    """Write `folder/report.md` and `folder/figures/*.png`.

    Args:
        folder: the run's folder; made if it is missing.
        summary: as in `summary.json`; entries that are missing are left out of the report.
        history: points by metric name, named as in `telemetry.metrics`.
        videos: files to link to, in or below `folder`.

    Returns:
        The path of `report.md`.

    Raises:
        ValueError: a video that lies outside `folder`: the link would break when the folder is moved.
    """
    folder = Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    points = {name: finite(values) for name, values in history.items()}
    figures = draw_figures(folder / "figures", summary, points)
    parts = [
        _heading(summary),
        _success_section(summary),
        _heldout_section(summary),
        _data_section(summary),
        _figure_section(figures),
        _fault_section(summary),
        _video_section(folder, videos),
        _last_values(points),
    ]
    path = folder / "report.md"
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return path


def _heading(summary: Mapping[str, Any]) -> str:
    rows = [
        ("status", summary.get("status")),
        ("wall time", _minutes(summary.get("wall_seconds"))),
        ("learner steps", _figure(summary.get("learner_steps"))),
        ("configuration", _code(summary.get("config_hash"))),
        ("code", _code(summary.get("code_version"))),
    ]
    return f"# {summary.get('name', 'run')}\n\n" + _table(("", ""), [row for row in rows if row[1]])


def _success_section(summary: Mapping[str, Any]) -> str:
    rows = [
        (
            row.get("task"),
            row.get("split"),
            row.get("domain"),
            _percent(row.get("first_rate")),
            _percent(row.get("rate")),
            f"{_percent(row.get('low'))} to {_percent(row.get('high'))}",
            row.get("n"),
        )
        for row in summary.get("success") or ()
    ]
    if not rows:
        return "## Success\n\nNo checkpoint was scored in this run."
    table = _table(("task", "split", "domain", "first checkpoint", "last", "95 % interval (Wilson)", "n"), rows)
    return f"## Success in closed loop\n\n{table}"


def _heldout_section(summary: Mapping[str, Any]) -> str:
    heldout = summary.get("heldout_error") or {}
    last, blind = heldout.get("last"), heldout.get("input_blind")
    if not heldout:
        return ""
    unit, ratio = heldout.get("unit", ""), ""
    if last is not None and blind:
        ratio = f" That is {100 * last / blind:.0f} % of the error of a model that ignores its input."
    values = (heldout.get("first"), last, blind)
    row = ["not finite" if value is None else f"{_figure(value)} {unit}" for value in values]
    table = _table(("first checkpoint", "last", "input-blind model"), [row])
    return (
        f"## Held-out action error\n\n{table}\n\nMeasured on a fixed set of episodes that is never trained on.{ratio}"
    )


def _data_section(summary: Mapping[str, Any]) -> str:
    episodes, reuse = summary.get("episodes") or {}, summary.get("reuse") or {}
    rejected = ", ".join(f"{reason} {n}" for reason, n in sorted((episodes.get("rejected") or {}).items())) or "none"
    generated, accepted = episodes.get("generated"), episodes.get("accepted")
    share = f" ({100 * accepted / generated:.1f} %)" if generated and accepted is not None else ""
    verdict = ""
    if reuse.get("max") is not None and reuse.get("bound") is not None:
        verdict = " (kept)" if reuse["max"] <= reuse["bound"] else " (**exceeded**)"
    rows = [
        ("episodes generated", _figure(generated)),
        ("accepted", f"{_figure(accepted)}{share}"),
        ("rejected, by reason", rejected),
        ("quarantined: took their simulator down", _figure(episodes.get("quarantined"))),
        ("state-action pairs accepted", _figure(summary.get("frames"))),
        ("experience throughput, fresh pairs per learner step", _figure(summary.get("experience_throughput"))),
        ("reuse of a pair, mean", _figure(reuse.get("mean"))),
        ("reuse of a pair, most", f"{_figure(reuse.get('max'))} of at most {_figure(reuse.get('bound'))}{verdict}"),
        ("learner waiting for data", _percent(summary.get("stall_fraction"))),
        ("actors idle (paced, or the replay was full)", _percent(summary.get("actor_idle_fraction"))),
    ]
    return "## Data\n\n" + _table(("", ""), rows)


def _figure_section(figures: Mapping[str, Path]) -> str:
    if not figures:
        return "## Curves\n\nThe run was too short to draw curves."
    lines = [f"![{caption}](figures/{path.name})" for caption, path in figures.items()]
    return "## Curves\n\n" + "\n\n".join(lines)


def _fault_section(summary: Mapping[str, Any]) -> str:
    faults = summary.get("faults") or {}
    if not faults:
        return "## Faults\n\nNone."
    rows = [(kind, f["count"], f"{_figure(f.get('recovery_s_p50'))} s") for kind, f in sorted(faults.items())]
    return "## Faults\n\n" + _table(("kind", "count", "recovery, median"), rows)


def _video_section(folder: Path, videos: Sequence[str | Path]) -> str:
    if not videos:
        return ""
    root = folder.resolve()
    links = [f"- [{Path(v).name}]({Path(v).resolve().relative_to(root).as_posix()})" for v in videos]
    return "## Videos\n\n" + "\n".join(links)


def _last_values(points: History) -> str:
    rows = [
        (f"`{name}`", _figure(values[-1].value), unit_of(name), values[-1].step)
        for name, values in sorted(points.items())
        if values and not name.startswith("success/")
    ]
    return "## Last values\n\n" + _table(("metric", "value", "unit", "step"), rows) if rows else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; `|` in a cell is escaped, None becomes a dash."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for row in rows:
        lines.append("| " + " | ".join("-" if c is None else str(c).replace("|", "\\|") for c in row) + " |")
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) or (math.isfinite(value) and abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _minutes(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds / 60:.1f} min"


def _code(text: object) -> str | None:
    return f"`{text}`" if text else None
