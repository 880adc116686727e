"""The one form of a benchmark's result: a table on the screen, a JSON file beside the code."""

from __future__ import annotations

import datetime
import json
import os
import platform
from pathlib import Path

from rich.console import Console
from rich.table import Table

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
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def print_rows(title: str, rows: list[dict[str, object]]) -> None:
    """One table; columns are the keys of all rows, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(_text(row.get(column, "")) for column in columns))
    Console().print(table)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
