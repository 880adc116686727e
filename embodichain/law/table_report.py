"""The sections of a report that show tables: `replay_bound`, `domain_expansion`, `actors`."""

from __future__ import annotations

from embodichain.law.analysis import Analysis
from embodichain.law.design import human
from embodichain.law.markdown import table, value_text
from embodichain.law.table_figures import CAPTIONS
from embodichain.law.tables import Comparison, ErrorComparison, Table


def table_sections(analysis: Analysis) -> list[str]:
    """Markdown sections, one per table and one for the paper's."""
    sections = []
    for each in analysis.tables:
        sections.append(_section(each))
    if analysis.tables and analysis.tables[0].paper:
        header, *rows = analysis.tables[0].paper
        sections.append(
            "## The paper's table, for its shape\n\n"
            "**Other tasks, another model and another scale** (arXiv 2604.16484): compare the order of the rows, "
            "not the numbers.\n\n" + table(header, rows)
        )
    return sections


def _section(each: Table) -> str:
    cells = next(iter(each.cells.values()))
    size = f"{cells[0].model or 'model'} {human(cells[0].parameters)}" if cells[0].parameters else cells[0].model
    lines = [f"## {CAPTIONS[each.name]} ({size or 'model not known'})"]
    header = ("", "runs", *each.columns, *each.number_names)
    rows = []
    for row in each.rows:
        rates = [_rate(each, row, column) for column in each.columns]
        numbers = [value_text(each.numbers.get((row, name))) for name in each.number_names]
        rows.append((row, len(each.cells[row]), *rates, *numbers))
    lines.append(table(header, rows))
    if each.columns:
        lines.append("Rates with Wilson's 95 % interval of the pooled counts; *n* is training runs × evaluation seeds.")
    if each.measured:
        unit = cells[0].protocol.unit or "the runs' own unit"
        lines.append(f"Held-out errors in {unit}: geometric means over the runs.{_beside_blind(each)}")
    if each.comparisons:
        lines.append("### Compared on the same evaluation seeds")
        lines.append(
            table(("", "column", "difference, points", "p", "only the first : only the second", "by"), _compared(each))
        )
        lines.append(
            "p-values are not corrected for their number. A difference is shown where its interval excludes zero."
        )
    if each.errors:
        lines.append("### Held-out error, runs of equal training seed in pairs")
        errors = [_error(comparison) for comparison in each.errors]
        lines.append(table(("", "column", "times as large", "p", "pairs"), errors))
        lines.append("Student's interval and test over logarithms; below 1, the first is better.")
    lines += [f"- {note}" for note in each.notes]
    return "\n\n".join(lines)


def _beside_blind(each: Table) -> str:
    """What a model that ignores its input has, and which runs are not below that: they have learned nothing yet."""
    if each.input_blind is None:
        return ""
    column, errors = each.blind_error, each.measured[each.blind_error]
    above = {row: sum(error >= each.input_blind for error in errors[row]) for row in each.rows}
    listed = [f"{row} {count} of {len(errors[row])}" for row, count in above.items() if count]
    short = f" Runs that are not below it: {', '.join(listed)}." if listed else " Every run is below it."
    return f" A model that ignores its input: {value_text(each.input_blind)} ({column}).{short}"


def _compared(each: Table) -> list[tuple[str, ...]]:
    return [_comparison(comparison) for comparison in each.comparisons]


def _comparison(comparison: Comparison) -> tuple[str, ...]:
    found = comparison.difference
    sure = found.low * found.high > 0
    text = f"{100 * found.difference:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return (
        f"{comparison.a} − {comparison.b}",
        comparison.column,
        f"**{text}**" if sure else text,
        "-" if found.p is None else f"{found.p:.2g}",
        "-" if found.better is None else f"{found.better} : {found.worse}",
        f"McNemar, {found.method}" if found.better is not None else found.method,
    )


def _error(comparison: ErrorComparison) -> tuple[str, ...]:
    found = comparison.ratio
    text = f"{found.ratio:.2f}" + (f" [{found.low:.2f}, {found.high:.2f}]" if found.pairs > 1 else "")
    sure = found.pairs > 1 and (found.high < 1 or found.low > 1)
    p = "-" if found.p is None else f"{found.p:.2g}"
    return f"{comparison.a} / {comparison.b}", comparison.column, f"**{text}**" if sure else text, p, str(found.pairs)


def _rate(each: Table, row: str, column: str) -> str:
    rate = each.rates.get((row, column))
    if rate is None:
        return "-"
    return f"{100 * rate.k / rate.n:.0f} % [{100 * rate.low:.0f}, {100 * rate.high:.0f}] n={rate.n}"
