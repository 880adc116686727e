"""Cells from a plain table, for results that were not made by this project.

One line per run and budget. Columns: `seed`, `steps`, and either `throughput` or `unique_pairs`; of the results at
least one of `error`, or `k` and `n` (successes of trials). Optional: `run`, `arm` (`stream`, `matched_d`, ...),
`share`, `model`, `parameters`, `core_seconds`, `unit`, `task`, `split`, `mode`, `reuse_bound`, `mlflow_run_id`,
`code_version`, `status`. Any other column becomes one of the run's varying values. Lines of one `run` are its readings.
"""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

from embodichain.law.cell import Cell, LawError, Protocol, Reading, Scalar, SuccessRow

KNOWN = (
    *("run", "arm", "seed", "status", "model", "parameters", "mode", "reuse_bound", "unit", "mlflow_run_id"),
    *(
        "code_version",
        "steps",
        "share",
        "throughput",
        "unique_pairs",
        "core_seconds",
        "error",
        "k",
        "n",
        "task",
        "split",
    ),
)
SPLIT = "heldout_seeds"
WHOLE = ("seed", "steps", "parameters", "k", "n")


def read_csv(path: str | Path) -> list[Cell]:
    """Cells of a table. Raises `LawError` naming the line and the column that is wrong."""
    try:
        with Path(path).open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LawError(f"csv={path}: cannot be read ({error})") from error
    if not rows:
        raise LawError(f"csv={path}: no lines; expected a header and one line per run")
    for column in ("seed", "steps"):
        if column not in rows[0]:
            raise LawError(f"csv={path}: no column {column}; expected seed, steps, throughput, and error or k and n")
    runs: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for line, row in enumerate(rows, start=2):
        runs.setdefault(row.get("run") or f"line {line}", []).append((line, row))
    return [_cell(str(path), name, lines) for name, lines in runs.items()]


def _cell(path: str, name: str, lines: list[tuple[int, dict[str, str]]]) -> Cell:
    line, row = lines[0]
    where = f"{path}:{line}"
    readings = sorted((_reading(f"{path}:{at}", each) for at, each in lines), key=lambda reading: reading.step)
    for one, other in pairwise(readings):
        if one.step == other.step:
            raise LawError(f"{where}: run {name} has two lines of {one.step} steps; expected one, all tasks together")
    values: dict[str, Scalar] = {key: value for key, value in row.items() if key and key not in KNOWN}
    parameters = _number(where, row, "parameters")
    rows = readings[-1].success
    return Cell(
        name=name,
        path=where if name.startswith("line ") else name,
        arm=row.get("arm") or "stream",
        values=values,
        seed=int(_number(where, row, "seed") or 0),
        status=row.get("status") or "done",
        readings=tuple(readings),
        model=row.get("model") or "",
        parameters=None if parameters is None else int(parameters),
        mode=row.get("mode") or "stream",
        reuse_bound=_number(where, row, "reuse_bound"),
        protocol=Protocol(unit=row.get("unit") or "", domains=tuple(each.key for each in rows)),
        mlflow_run_id=row.get("mlflow_run_id") or None,
        code_version=row.get("code_version") or "",
    )


def _reading(where: str, row: dict[str, str]) -> Reading:
    steps, unique = _number(where, row, "steps"), _number(where, row, "unique_pairs")
    throughput, share = _number(where, row, "throughput"), _number(where, row, "share")
    if steps is None or steps < 1:
        raise LawError(f"{where}: steps={row.get('steps')!r}: expected at least 1")
    if unique is None:
        if throughput is None:
            raise LawError(f"{where}: neither throughput nor unique_pairs; expected one of them")
        unique = throughput * steps
    k, n = _number(where, row, "k"), _number(where, row, "n")
    rows: tuple[SuccessRow, ...] = ()
    if k is not None and n is not None:
        task, split = row.get("task") or "all", row.get("split") or SPLIT
        rows = (SuccessRow(task=task, split=split, domain="", k=int(k), n=int(n)),)
    return Reading(
        step=int(steps),
        share=1.0 if share is None else share,
        unique_pairs=unique,
        core_seconds=_number(where, row, "core_seconds"),
        error=_number(where, row, "error"),
        success=rows,
    )


def _number(where: str, row: dict[str, str], column: str) -> float | None:
    text = (row.get(column) or "").strip()
    if not text:
        return None
    try:
        number = float(text)
        if column in WHOLE:
            int(number)  # NaN and infinity are none
        return number
    except (ValueError, OverflowError) as error:
        raise LawError(f"{where}: {column}={text!r}: expected a {'whole ' * (column in WHOLE)}number") from error
