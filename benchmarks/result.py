"""The one form of a benchmark's result: a table on the screen, a JSON file beside the code."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from embodichain.app.settings import write_json

_UNBOUND = 100_000  # characters: wider than any table
RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """The machine in a few words: processor, cores, memory."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB"


def write_result(bench: str, command: str, rows: list[dict[str, object]], folder: Path = RESULTS) -> Path:
    """Write `<folder>/<bench>.json`: bench, date, machine, command, rows."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{bench}.json"
    content = {
        "bench": bench,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "command": command,
        "rows": rows,
    }
    write_json(path, content)  # whole or not at all: rows of hours must not be lost to a kill
    return path


def print_rows(title: str, rows: list[dict[str, object]], width: int | None = None) -> None:
    """The rows as a table of at most `width` characters; columns are the keys of all rows, in order of appearance.

    What is wider comes in parts that each begin with the columns of names: a figure that is cut off says
    nothing. By default `width` is the terminal's; a file or a pipe gets the whole table.
    """
    if width is None:
        console = Console()
        width = console.width if console.is_terminal else _UNBOUND
    columns = list(dict.fromkeys(key for row in rows for key in row))
    words = [column for column in columns if _is_label(row.get(column) for row in rows)]
    figures = [column for column in columns if column not in words]
    while True:
        count = len(figures)
        while count > 1 and _needs(_table(title, rows, words + figures[:count])) > width:
            count -= 1
        table = _table(title, rows, words + figures[:count])
        Console(width=min(_needs(table), width)).print(table)
        figures = figures[count:]
        if not figures:
            return


def _is_label(cells: Iterable[object]) -> bool:
    """Whether a column holds short names, which say what a row is, rather than figures or remarks."""
    present = [cell for cell in cells if cell is not None]
    return bool(present) and all(isinstance(cell, str) and len(cell) <= 40 for cell in present)


def _needs(table: Table) -> int:
    """Characters that no cell of the table is cut or folded in."""
    wide = Console(width=_UNBOUND)
    return Measurement.get(wide, wide.options, table).maximum


def _table(title: str, rows: list[dict[str, object]], columns: list[str]) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_text(row.get(column, "")) for column in columns))
    return table


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
