"""The tables of the other sweeps: reuse bounds, domain expansion, actors.

Takes: admitted cells. Hands on: rows with rates, intervals and paired comparisons, ready to print.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import Any

import numpy as np

from embodichain.contracts import wilson_interval
from embodichain.law.cell import Cell, LawError, SuccessRow
from embodichain.law.curves import Array
from embodichain.law.design import clusters, human
from embodichain.law.paired import (
    RateDifference,
    RatioOfErrors,
    from_counts,
    from_outcomes,
    geometric_mean,
    ratio_of_errors,
)
from embodichain.law.plan import Plan

OVERALL = "all tasks"
ERROR = "held-out error"
BOUND_NUMBERS = ("learner steps", "unique pairs", "most uses of a pair", "core-seconds")
ACTOR_NUMBERS = ("episodes per minute", "learner waiting for data, %", "E, pairs per step", "learner steps")
INSIDE, OUTSIDE = "in distribution", "out of distribution"
DATA_BOUND = 0.05  # share of its time that a learner may wait before it counts as data-bound
OUT_OF_DISTRIBUTION = ("heldout_scenes", "heldout_combinations", "heldout_language", "heldout_tasks")


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Success of one row in one column: k of n over `runs`, Wilson's interval of the pooled counts."""

    k: int
    n: int
    low: float
    high: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Row `a` minus row `b` in a column, on the same evaluation seeds."""

    a: str
    b: str
    column: str
    difference: RateDifference


@dataclass(frozen=True, kw_only=True)
class ErrorComparison:
    """Held-out error of row `a` over that of row `b` in a column, runs of equal training seed in pairs."""

    a: str
    b: str
    column: str
    ratio: RatioOfErrors


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table.

    Attributes:
        name: `replay_bound`, `domain_expansion` or `actors`. `rows`, `columns`: their names, in order.
        rates: (row, column) -> success. `numbers`: (row, name) -> any other figure, with `number_names` in order.
        comparisons: between rows, of success. `errors`: of held-out error. `cells`: row -> its runs. `notes`: in words.
        measured: name of a held-out error -> row -> one per run, what `errors` compares.
        input_blind: `blind_error`, the first of these errors, for a model that ignores its input, None if no run says.
        paper: the paper's own table, row -> figures; other tasks, other scale.
    """

    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    rates: dict[tuple[str, str], Rate]
    number_names: tuple[str, ...]
    numbers: dict[tuple[str, str], float]
    comparisons: tuple[Comparison, ...]
    cells: dict[str, tuple[Cell, ...]]
    errors: tuple[ErrorComparison, ...] = ()
    measured: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    input_blind: float | None = None
    notes: tuple[str, ...] = ()
    paper: tuple[tuple[str, ...], ...] = ()

    @property
    def blind_error(self) -> str:
        """Name of the held-out error that `input_blind` is of; empty without any."""
        return next(iter(self.measured), "")


# arXiv 2604.16484: success after training on a static set or on the stream; and under domain expansion.
PAPER_BOUNDS = (
    ("training", "Hanging Mug", "Turn Switch", "Stack Bowls"),
    ("static set, 1 500 demonstrations", "62 %", "85 %", "88 %"),
    ("stream, bound 213", "60 %", "84 %", "85 %"),
    ("stream, bound 50", "92 %", "92 %", "96 %"),
    ("stream, bound 10", "96 %", "98 %", "98 %"),
)
PAPER_DOMAINS = (
    ("domain expansion", "in distribution", "out of distribution"),
    ("spatial randomisation only", "64 %", "25 %"),
    ("+ visual augmentation", "75 %", "42 %"),
    ("+ physics-grounded generation", "81 %", "56 %"),
    ("+ reachability-aware sampling", "95 %", "82 %"),
)


def tables_for(cells: Sequence[Cell], plan: Plan, rng: np.random.Generator) -> tuple[Table, ...]:
    """The table of the plan's kind, one per network size. Raises `LawError` if the runs do not make one."""
    make: Callable[[Sequence[Cell], Plan, np.random.Generator], Table] = {
        "replay_bound": replay_bound,
        "domain_expansion": domain_expansion,
        "actors": actors,
    }[plan.kind]
    sizes = sorted({(cell.model, cell.parameters) for cell in cells}, key=str)
    return tuple(make([c for c in cells if (c.model, c.parameters) == size], plan, rng) for size in sizes)


def replay_bound(cells: Sequence[Cell], plan: Plan, rng: np.random.Generator) -> Table:
    """Static set against the stream under its bounds, at equal learner steps; success per task."""

    def row_of(cell: Cell) -> str:
        return "static set" if cell.mode == "static" else f"stream, bound {cell.reuse_bound or 0:g}"

    def rank(row: str) -> float:
        bounds = [cell.reuse_bound or 0 for cell in cells if row_of(cell) == row]
        return float("-inf") if row == "static set" else -bounds[0]

    by_row = _by_row(cells, row_of, plan, rank)
    baseline, streams = plan.baseline or "static set", [row for row in by_row if row != "static set"]
    pairs = [(row, baseline) for row in by_row if row != baseline]
    pairs += [
        (row, streams[0]) for row in streams[1:] if (row, streams[0]) not in pairs
    ]  # tighter bounds over the loosest
    table = _success_table("replay_bound", by_row, lambda row: row.task, pairs, plan, rng)
    numbers = {}
    for row, members in by_row.items():
        numbers[row, "learner steps"] = _mean([cell.final.step for cell in members])
        numbers[row, "unique pairs"] = _mean([cell.final.unique_pairs for cell in members])
        numbers[row, "most uses of a pair"] = max(cell.reuse_max or 0.0 for cell in members)
        numbers[row, "core-seconds"] = _mean([cell.final.core_seconds for cell in members])
    table = replace(table, numbers=numbers, number_names=BOUND_NUMBERS)
    return replace(
        _with_errors(table, {ERROR: lambda cell: cell.final.error}, pairs, plan),
        notes=(*table.notes, *_equal_steps(cells)),
        paper=PAPER_BOUNDS,
    )


def domain_expansion(cells: Sequence[Cell], plan: Plan, rng: np.random.Generator) -> Table:
    """One row per training domain; success and held-out error in distribution and out of it."""
    by_row = _by_row(cells, lambda cell: str(cell.values.get(plan.row, cell.arm)), plan, lambda row: row.count("+"))
    names = list(by_row)
    pairs = [(row, plan.baseline) for row in names if row != plan.baseline] if plan.baseline else []
    pairs = pairs or list(zip(names[1:], names[:-1], strict=True))

    def side(row: SuccessRow) -> str:
        return OUTSIDE if row.split in OUT_OF_DISTRIBUTION else INSIDE

    def error_in(column: str) -> Callable[[Cell], float | None]:
        domains = {row.domain for cell in cells for row in cell.final.success if side(row) == column}
        return lambda cell: _geometric([cell.final.errors.get(domain) for domain in sorted(domains)])

    table = _success_table("domain_expansion", by_row, side, pairs, plan, rng, overall=False)
    notes = list(table.notes)
    if any(cell.protocol.encoder == "state" for cell in cells):
        notes.append("the encoder is `state`: visual augmentation cannot change what it sees")
    columns: dict[str, Callable[[Cell], float | None]] = {f"{ERROR}, {each}": error_in(each) for each in table.columns}
    if not any(cell.final.errors for cell in cells):  # runs of before errors were measured in every scored domain
        columns = {ERROR: lambda cell: cell.final.error}
    return replace(
        _with_errors(table, columns, pairs, plan),
        notes=(*notes, *_equal_steps(cells)),
        paper=PAPER_DOMAINS,
    )


def actors(cells: Sequence[Cell], plan: Plan, rng: np.random.Generator) -> Table:
    """Generation rate against the number of actors (and nodes), and how long the learner waited for data."""
    several = len({cell.nodes for cell in cells}) > 1

    def row_of(cell: Cell) -> str:
        if plan.row not in cell.values:
            raise LawError(f"{cell.path}: its config has no {plan.row} that varies; the plan makes rows of it")
        nodes = f" on {cell.nodes} node{'s' * (cell.nodes > 1)}" if several else ""
        return f"{cell.values[plan.row]}{nodes}"

    def rank(row: str) -> float:
        first, *nodes = row.split(" on ")
        try:
            return 1e6 * float(nodes[0].split()[0] if nodes else 0) + float(first)
        except ValueError:
            return 0.0

    by_row = _by_row(cells, row_of, plan, rank)
    numbers = {}
    for row, members in by_row.items():
        numbers[row, "episodes per minute"] = 60 * _mean([cell.generated_per_s for cell in members])
        numbers[row, "learner waiting for data, %"] = 100 * _mean([cell.stall_fraction for cell in members])
        numbers[row, "E, pairs per step"] = _mean([cell.throughput for cell in members])
        numbers[row, "learner steps"] = _mean([cell.final.step for cell in members])
    fed = [row for row in by_row if numbers[row, "learner waiting for data, %"] < 100 * DATA_BOUND]
    knee = f"the learner is data-bound throughout: it waits {100 * DATA_BOUND:.0f} % of its time or more"
    if fed:
        knee = f"the learner waits less than {100 * DATA_BOUND:.0f} % of its time from {plan.row} = {fed[0]} on"
    return Table(
        name="actors",
        rows=tuple(by_row),
        columns=(),
        rates={},
        number_names=ACTOR_NUMBERS,
        numbers=numbers,
        comparisons=(),
        cells={row: tuple(members) for row, members in by_row.items()},
        notes=(knee,),
    )


def _success_table(
    name: str,
    by_row: dict[str, list[Cell]],
    column_of: Callable[[SuccessRow], str],
    pairs: Sequence[tuple[str, str]],
    plan: Plan,
    rng: np.random.Generator,
    *,
    overall: bool = True,
) -> Table:
    columns = sorted({column_of(row) for cells in by_row.values() for cell in cells for row in cell.final.success})
    shown = [*columns, OVERALL] if overall and len(columns) > 1 else columns

    def chosen(cell: Cell, column: str) -> list[SuccessRow]:
        return [row for row in cell.final.success if column in (OVERALL, column_of(row))]

    rates, comparisons = {}, []
    for column in shown:
        for row, members in by_row.items():
            counts = [_counts(chosen(cell, column)) for cell in members]
            k, n = sum(k for k, _ in counts), sum(n for _, n in counts)
            if n:
                low, high = wilson_interval(k, n)
                rates[row, column] = Rate(k=k, n=n, low=low, high=high, runs=len(members))
        for a, b in pairs:
            if (a, column) in rates and (b, column) in rates:
                first, second = ([chosen(cell, column) for cell in by_row[row]] for row in (a, b))
                comparisons.append(Comparison(a=a, b=b, column=column, difference=_compare(first, second, plan, rng)))
    missing = sorted({b for _, b in pairs if b not in by_row})
    notes = [f"no run of {row}: nothing is compared with it" for row in missing]
    few = [row for row, members in by_row.items() if len({cell.seed for cell in members}) < plan.min_seeds]
    if few:
        notes.append(
            f"fewer training seeds than the plan's {plan.min_seeds}: {', '.join(few)}; no conclusion is drawn from them"
        )
    if any(len(members) == 1 for members in by_row.values()):
        notes.append("rows with one training seed: their intervals hold evaluation noise alone")
    return Table(
        name=name,
        rows=tuple(by_row),
        columns=tuple(shown),
        rates=rates,
        number_names=(),
        numbers={},
        comparisons=tuple(comparisons),
        cells={row: tuple(members) for row, members in by_row.items()},
        notes=tuple(notes),
    )


def _with_errors(
    table: Table,
    columns: Mapping[str, Callable[[Cell], float | None]],
    pairs: Sequence[tuple[str, str]],
    plan: Plan,
) -> Table:
    """The table with the held-out errors `columns`: every run's, their geometric means, and rows compared in pairs."""
    measured, numbers, errors = {}, dict(table.numbers), list[ErrorComparison]()
    for column, error_of in columns.items():
        known = {row: by_seed(row, cells, error_of) for row, cells in table.cells.items()}
        measured[column] = {row: list(values.values()) for row, values in known.items()}
        numbers |= {(row, column): _geometric(list(values.values())) or nan for row, values in known.items()}
        for a, b in pairs:
            ratio = ratio_of_errors(known.get(a, {}), known.get(b, {}), plan.alpha)
            if ratio is not None:
                errors.append(ErrorComparison(a=a, b=b, column=column, ratio=ratio))
    return replace(
        table,
        numbers=numbers,
        number_names=(*table.number_names, *columns),
        errors=tuple(errors),
        measured=measured,
        input_blind=_geometric([cell.input_blind for cells in table.cells.values() for cell in cells]),
    )


def by_seed(row: str, cells: Sequence[Cell], error_of: Callable[[Cell], float | None]) -> dict[int, float]:
    """Training seed -> error. Raises `LawError` for two runs of one seed: they differ in something else."""
    errors: dict[int, float] = {}
    for cell in cells:
        error = error_of(cell)
        if error is None:
            continue
        if cell.seed in errors:
            raise LawError(f"{cell.path}: a second run of seed {cell.seed} in row {row}: the row is not one setting")
        errors[cell.seed] = error
    return errors


def _compare(
    a: list[list[SuccessRow]], b: list[list[SuccessRow]], plan: Plan, rng: np.random.Generator
) -> RateDifference:
    first, second = (_matrix(side) for side in (a, b))
    if first is not None and second is not None and first[1] == second[1]:
        return from_outcomes(first[0], second[0], plan.alpha, plan.resamples, rng)
    return from_counts([_counts(rows) for rows in a], [_counts(rows) for rows in b], plan.alpha)


def _matrix(runs: list[list[SuccessRow]]) -> tuple[Array, list[Any]] | None:
    """f64[runs, seeds] and what each column is; None unless every run has the same single outcomes."""
    columns: list[Any] | None = None
    matrix = []
    for rows in runs:
        outcomes = {(row.key, seed): float(ok) for row in rows for seed, ok in row.outcomes}
        names = sorted(outcomes)
        if len(outcomes) != _counts(rows)[1] or (columns is not None and names != columns):
            return None
        columns = names
        matrix.append([outcomes[name] for name in names])
    return (np.array(matrix), columns) if columns else None


def _counts(rows: Sequence[SuccessRow]) -> tuple[int, int]:
    return sum(row.k for row in rows), sum(row.n for row in rows)


def _by_row(
    cells: Sequence[Cell], row_of: Callable[[Cell], str], plan: Plan, rank: Callable[[str], float]
) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(row_of(cell), []).append(cell)
    unknown = [row for row in plan.order if row not in found]
    if plan.order and len(unknown) == len(plan.order):
        raise LawError(f"plan: order={list(plan.order)}: no run is one of these rows; there are {', '.join(found)}")
    order = [row for row in plan.order if row in found]
    order += sorted((row for row in found if row not in order), key=lambda row: (rank(row), row))
    return {row: found[row] for row in order}


def _equal_steps(cells: Sequence[Cell]) -> list[str]:
    steps = [cell.final.step for cell in cells]
    if len(clusters(steps, 0.05)) > 1:
        return [f"**learner steps differ** ({human(min(steps))} to {human(max(steps))}): not at equal iterations"]
    return []


def _geometric(values: Sequence[float | None]) -> float | None:
    """Geometric mean of errors (> 0); None if any of them, or all, are not known."""
    known = [value for value in values if value is not None]
    return geometric_mean(known) if known and len(known) == len(values) else None


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")
