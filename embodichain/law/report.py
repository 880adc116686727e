"""`report.md`, `report.json` and figures. Takes: an `Analysis`. Hands on: files that say what was found, and from what.

Every point of every figure stands in the report's last table with its run's folder, configuration and MLflow run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from embodichain.law.analysis import Analysis
from embodichain.law.design import human
from embodichain.law.figures import draw_figures, error_unit
from embodichain.law.level_table import level_tables
from embodichain.law.markdown import interval_text, percent, table, value_text
from embodichain.law.report_data import as_data
from embodichain.law.table_report import table_sections
from embodichain.law.verdict import GroupResult

MODELS = {"none": "no effect", "plain": "law", "hinge": "law with E*"}


def write_report(analysis: Analysis, folder: str | Path) -> Path:
    """Write `report.md`, `report.json` and `figures/` into `folder`, which is made; returns the path of `report.md`.

    Equal analyses give equal files.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    figures = draw_figures(analysis, root / "figures")
    (root / "report.json").write_text(json.dumps(as_data(analysis), indent=1) + "\n")
    report = root / "report.md"
    report.write_text(markdown(analysis, figures))
    return report


def markdown(analysis: Analysis, figures: Mapping[str, Path]) -> str:
    """The report as text. `figures`: caption -> file below `figures/`."""
    sections = [f"# {analysis.plan.name}", _conclusion(analysis), _runs(analysis), _figures(figures)]
    if analysis.verdict is not None:
        sections += [_fits(analysis), _thresholds(analysis), _controls(analysis), _compute(analysis), _noise(analysis)]
        by_level = level_tables((*analysis.primary, *analysis.by_compute), analysis.plan)
        sections.append(f"## Every level, as measured\n\n{by_level}")
    sections += table_sections(analysis)
    sections += [_plan(analysis), _excluded(analysis), _points(analysis)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _conclusion(analysis: Analysis) -> str:
    verdict = analysis.verdict
    if verdict is None:
        return ""
    rows = [("yes" if each.met else "**no**", each.name, each.detail) for each in verdict.criteria]
    lines = [f"**{verdict.headline}.**", table(("", "question", "answer"), rows)]
    if verdict.name == "no_effect":
        lines.append(_unseen(analysis))
    if verdict.threshold_groups:
        found = [r for r in analysis.primary if r.group.label in verdict.threshold_groups]
        each = [f"{r.group.label}: {_star(r)}" for r in found]
        lines.append("E* (the paper's τ(C, P)), unique pairs per step: " + "; ".join(each) + ".")
    lines.append(
        f"Decided by {_metric(analysis.plan.metric)} alone; questions are asked in this order and the first "
        "*no* ends it (a missing E* is a finding, not a failure). `docs/law.md` says how each is answered."
    )
    return "\n\n".join(lines)


def _star(result: GroupResult) -> str:
    assert result.comparison is not None
    assert result.comparison.threshold is not None
    found = result.comparison.threshold
    return interval_text((found.estimate, found.low, found.high))


def _unseen(analysis: Analysis) -> str:
    """What a sweep of this size could not have seen."""
    sound = [result for result in analysis.primary if not result.short]
    most = max(result.effect.detectable for result in sound)
    size = f"{100 * most:.1f} points" if analysis.plan.metric == "success" else f"{100 * most:.1f} %"
    return f"At this noise one sweep in five would not have seen a change of {size} between two levels."


def _runs(analysis: Analysis) -> str:
    cells = analysis.admitted.cells
    arms: dict[str, int] = {}
    for cell in cells:
        arms[cell.arm] = arms.get(cell.arm, 0) + 1
    text = ", ".join(f"{count} {arm}" for arm, count in sorted(arms.items()))
    lines = [f"{len(cells)} runs count ({text}); {len(analysis.admitted.exclusions)} were left out (listed below)."]
    lines += [f"- {note}" for note in analysis.admitted.notes]
    return "\n".join(lines)


def _figures(figures: Mapping[str, Path]) -> str:
    return "\n\n".join(f"![{caption}](figures/{path.name})\n\n*{caption}.*" for caption, path in figures.items())


def _fits(analysis: Analysis) -> str:
    sections = []
    for metric in dict.fromkeys(result.metric for result in analysis.results):
        results = [result for result in analysis.results if result.metric == metric]
        role = "primary" if metric == analysis.plan.metric else "secondary, decides nothing"
        sections.append(f"## {_metric(metric).capitalize()} over E, at equal gradient steps ({role})")
        sections.append(_effects(results, metric, analysis))
        fitted = [result for result in results if result.comparison is not None]
        if fitted:
            sections.append(_parameters(fitted, metric))
        if metric == "success":
            sections.append(_by_task(results, analysis.plan.split))
    return "\n\n".join(sections)


def _by_task(results: Sequence[GroupResult], split: str) -> str:
    """Success per task and level at the end of the runs, pooled over training seeds."""
    last = max(result.group.share for result in results)
    chosen = [result.group for result in results if result.group.share == last]
    tasks = sorted({row.task for group in chosen for point in group.points for row in point.reading.success})
    rows = []
    for group in chosen:
        for level, throughput in enumerate(group.level_throughput()):
            mine = [point.reading for point in group.points if point.level == level]
            cells = []
            for task in tasks:
                found = [row for r in mine for row in r.success if row.task == task and split in ("", row.split)]
                k, n = sum(row.k for row in found), sum(row.n for row in found)
                cells.append(f"{100 * k / n:.0f} % of {n}" if n else "-")
            rows.append((group.label, value_text(throughput), *cells))
    return "Per task, all training seeds together:\n\n" + table(("C, P", "E", *tasks), rows)


def _effects(results: Sequence[GroupResult], metric: str, analysis: Analysis) -> str:
    unit = error_unit(analysis) if metric == "error" else "%"
    rows = []
    for result in results:
        low, high = _ends(result)
        check = result.holdout
        fitted = None if result.comparison is None else result.comparison.fits[result.preferred].explained
        inside = percent(check.coverage) if check is not None and check.possible else "not possible"
        seen = (
            "too small: " + result.short if result.short else "effect" if result.p_holm <= analysis.plan.alpha else "no"
        )
        rows.append(
            (
                result.group.label,
                len(result.group.points),
                result.group.levels,
                f"{low:.3g} → {high:.3g}",
                f"{result.p_holm:.2g}",
                seen,
                percent(fitted) if result.preferred != "none" else "-",
                inside,
            )
        )
    header = (
        "C, P",
        "runs",
        "levels of E",
        f"lowest → highest E, {unit}",
        "p (Holm)",
        "effect",
        "curve explains",
        "unseen runs inside",
    )
    return table(header, rows)


def _ends(result: GroupResult) -> tuple[float, float]:
    """Mean of the lowest and of the highest level: geometric for errors, pooled rates in % for success."""
    from math import exp

    ends = []
    for level in (0, result.group.levels - 1):
        mine = [point for point in result.group.points if point.level == level]
        if result.metric == "error":
            ends.append(exp(sum(point.y for point in mine) / len(mine)))
        else:
            ends.append(100 * sum(point.k for point in mine) / sum(point.n for point in mine))
    return ends[0], ends[1]


def _parameters(results: Sequence[GroupResult], metric: str) -> str:
    names = ("L_inf", "A", "alpha") if metric == "error" else ("p_inf", "E50", "gamma")
    rows = []
    for result in results:
        assert result.comparison is not None
        fits = result.comparison.fits
        best = min(each.aicc for each in fits.values())
        for model in ("none", "plain", "hinge"):
            fitted = fits[model]
            cells = [
                interval_text(fitted.parameters[name], fitted.at_bound[name]) if name in fitted.parameters else "-"
                for name in (*names, "E_star")
            ]
            if model == "none":
                cells[0] = interval_text(fitted.parameters["c"])
            shown = " (shown)" if model == result.preferred else ""
            delta = f"{fitted.aicc - best:.1f}"
            errors = (value_text(fitted.left_out_seed), value_text(fitted.left_out_level))
            rows.append((result.group.label if model == "none" else "", MODELS[model] + shown, *cells, delta, *errors))
    header = ("C, P", "curve", *(f"`{name}`" for name in names), "`E*`", "ΔAICc", "left-out seed", "left-out level")
    equation = (
        "L(E) = L_inf + A E^(-alpha); with E*: the same at max(E, E*)"
        if metric == "error"
        else "p(E) = p_inf / (1 + (E50 / E)^gamma); with E*: the same at max(E, E*)"
    )
    note = (
        f"`{equation}`. Estimates with bootstrap intervals over training runs (and evaluation seeds, where known). "
        "*n.i.*: not identified, at the edge of its range in more than a tenth of the resamples."
    )
    return table(header, rows) + "\n\n" + note


def _thresholds(analysis: Analysis) -> str:
    asked = [result for result in analysis.results if result.threshold]
    if not asked:
        return ""
    names = [criterion.name for criterion in asked[0].threshold]
    rows = [
        (
            f"{result.group.label}, {result.metric}",
            _star(result),
            *(("yes" if c.met else "**no**") + f": {c.detail}" for c in result.threshold),
            "**E***" if result.has_threshold else "none",
        )
        for result in asked
    ]
    return "## Threshold E*\n\nAll of the plan's criteria must hold.\n\n" + table(
        ("C, P", "E* of the hinge", *names, "found"), rows
    )


def _controls(analysis: Analysis) -> str:
    lines = ["## Throughput, or the amount of data?"]
    matched, crossed, success = analysis.matched, analysis.crossed, analysis.plan.metric == "success"
    unit = "success rate" if success else "log error"
    if matched is None:
        lines.append("No matched-D pair: at equal steps E and D are one variable, so nothing is attributed by it.")
    else:
        finding = {
            "fresh": "the stream does better than the same data all at once",
            "data": "the same data all at once does as well, or better",
            "unresolved": "the interval allows either",
        }[matched.finding]
        rows = [
            (each.label, each.pairs, interval_text((each.mean, each.low, each.high)), f"{each.p:.2g}")
            for each in (matched.overall, *matched.by_level)
        ]
        lines.append(
            f"**Matched-D arm**: {finding}. Stream minus matched-D in {unit}, in pairs of equal seed, steps and D "
            f"(*all pairs*: one a run, its readings averaged; below: at the end); a difference of up to "
            f"{analysis.plan.equivalence:g} would not matter."
        )
        lines.append(table(("pairs", "n", "difference", "p (sign flips)"), rows))
    if crossed is not None:
        lines.append(_crossing(analysis))
    return "\n\n".join(lines)


def _crossing(analysis: Analysis) -> str:
    crossed = analysis.crossed
    assert crossed is not None
    if crossed.collinear:
        return (
            f"**Crossing E with steps**: refused. log E and log D are collinear in these runs (rank {crossed.rank} of "
            f"{crossed.columns}, VIF {crossed.vif:.3g}, at most {analysis.plan.max_vif:g} allowed): runs of equal D at "
            "different E are missing."
        )
    return (
        f"**Crossing E with steps**: VIF {crossed.vif:.3g}. Slope over log E at equal D: "
        f"{interval_text(crossed.at_equal_data)} (where D is equal, more E means fewer steps). One curve through all "
        f"budgets: AICc {crossed.aicc_throughput:.1f} over E, {crossed.aicc_data:.1f} over D: {crossed.finding}."
    )


def _compute(analysis: Analysis) -> str:
    if not analysis.by_compute:
        return "## At equal core-seconds\n\nNot possible: these runs do not say what they cost in core-seconds."
    lines = ["## At equal core-seconds, generation included", _effects(analysis.by_compute, "error", analysis)]
    fitted = [result for result in analysis.by_compute if result.comparison is not None]
    if fitted:
        lines.append(_parameters(fitted, "error"))
    missing = sorted({each for result in analysis.by_compute for each in result.group.missing})
    if missing:
        lines.append(
            f"{len(missing)} readings are missing: " + "; ".join(missing[:8]) + ("; ..." if missing[8:] else "")
        )
    lines.append("Held-out error between two readings of a run is interpolated, linear in its logarithm over log cost.")
    return "\n\n".join(lines)


def _noise(analysis: Analysis) -> str:
    rows = []
    for result in analysis.results:
        noise = result.noise
        unit = 100.0
        rows.append(
            (
                f"{result.group.label}, {result.metric}",
                value_text(unit * noise.total),
                value_text(unit * noise.training),
                value_text(None if noise.evaluation is None else unit * noise.evaluation),
                percent(noise.seed_share),
                value_text(noise.phi),
                noise.method,
            )
        )
    header = ("C, P", "one run's sd, %", "training", "evaluation", "common to a seed", "φ", "how")
    return "## Where the scatter comes from\n\n" + table(header, rows)


def _plan(analysis: Analysis) -> str:
    plan = analysis.plan
    rows = [(f"`{key}`", f"`{value}`") for key, value in asdict(plan).items()]
    lines = [f"## Analysis plan `{plan.hash()}`", table(("key", "value"), rows), "### Deviations from it"]
    lines.append("\n".join(f"- {each}" for each in analysis.deviations) or "None.")
    return "\n\n".join(lines)


def _excluded(analysis: Analysis) -> str:
    rows = [(f"`{each.cell.path}`", each.reason, each.detail) for each in analysis.admitted.exclusions]
    return "## Runs left out\n\n" + (table(("run", "reason", "detail"), rows) if rows else "None.")


def _points(analysis: Analysis) -> str:
    rows: list[Sequence[object]] = []
    for cell in analysis.admitted.cells:
        for reading in cell.readings:
            k, n = sum(row.k for row in reading.success), sum(row.n for row in reading.success)
            rows.append(
                (
                    f"`{cell.path}`",
                    cell.arm,
                    human(cell.parameters),
                    cell.seed,
                    reading.step,
                    value_text(reading.throughput),
                    human(reading.unique_pairs),
                    human(reading.core_seconds),
                    value_text(reading.error),
                    f"{k}/{n}" if n else "-",
                    f"`{cell.config_hash}`" if cell.config_hash else "-",
                    f"`{cell.mlflow_run_id}`" if cell.mlflow_run_id else "-",
                    f"`{cell.code_version}`" if cell.code_version else "-",
                )
            )
    header = (
        "run",
        "arm",
        "P",
        "seed",
        "steps",
        "E",
        "D",
        "core-s",
        "error",
        "success",
        "config",
        "MLflow run",
        "code",
    )
    return "## Every point\n\n" + table(header, rows)


def _metric(metric: str) -> str:
    return "held-out error" if metric == "error" else "closed-loop success"
