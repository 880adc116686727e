"""`embodichain bench chaos` and `bench scale`: what faults cost, and what would limit a thousand simulators."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import Progress

from embodichain.app.config import ConfigError

Finish = Callable[..., int]
DETAILS = ("recovery_s", "losses", "broke")  # of a row: kept with it, too long to show


def add_parsers(names: Any, finish: Finish) -> None:
    """Add both to the benchmarks; `finish` prints and writes their rows as those of any other."""
    chaos = names.add_parser("chaos", help="faults injected: what was lost, and how long until it worked again")
    chaos.add_argument("--faults", nargs="+", metavar="NAME", help="default: all")
    chaos.add_argument("--times", type=int, default=20, help="injections of each; too few are not kept (default 20)")
    chaos.add_argument("--add", action="store_true", help="to what was measured before, and keep the sum")
    chaos.set_defaults(handler=lambda arguments: _chaos(arguments, finish))
    scale = names.add_parser("scale", help="what limits many simulators and shards: measured costs, simulated queues")
    scale.add_argument("--simulators", type=int, default=1000, help="default 1000")
    scale.add_argument("--shards", type=int, default=100, help="default 100")
    scale.add_argument("--episode-s", type=float, default=0.5, help="seconds of simulating an episode (default 0.5)")
    scale.add_argument("--steps-per-s", type=float, default=10.0, help="of the learner (default 10)")
    scale.add_argument("--gbit", type=float, default=25.0, help="Gbit/s of a node's network card (default 25)")
    scale.set_defaults(tasks=None, handler=lambda arguments: _scale(arguments, finish))
    for parser in (chaos, scale):
        parser.add_argument("--json", action="store_true", help="print the table as JSON, nothing else")


def _chaos(arguments: argparse.Namespace, finish: Finish) -> int:
    from benchmarks.chaos.table import FAULTS, run
    from benchmarks.result import write_result

    unknown = [name for name in arguments.faults or () if name not in FAULTS]
    if unknown:
        raise ConfigError(f"--faults: unknown fault {unknown[0]}; expected some of {', '.join(FAULTS)}")
    if arguments.times < 1:
        raise ConfigError(f"--times={arguments.times}: expected at least 1")
    names = arguments.faults or list(FAULTS)
    tried = not arguments.add and any(arguments.times < FAULTS[name].enough for name in names)
    arguments.tasks = names if tried else None  # a try is not written over the table
    rows: list[dict[str, object]] = []
    with Progress(console=Console(stderr=True), disable=arguments.json) as progress:
        bar = progress.add_task("injections", total=len(names) * arguments.times)
        for row in run(names, arguments.times, lambda: progress.advance(bar)):
            rows.append(_sum(row) if arguments.add else row)
            progress.console.print(f"{row['fault']}: {_shown([row])[0]}")
            if not tried:
                write_result("chaos", shlex.join(["embodichain", *sys.argv[1:]]), _table(rows))
    rows = rows if tried else _table(rows)
    finish("chaos", rows, arguments, _shown(rows))
    return int(any(row["broken"] != "nothing" for row in rows))


def _table(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """These rows, and those of other faults that were measured before, in the order of the faults."""
    from benchmarks.chaos.table import FAULTS

    by_fault = {str(row["fault"]): row for row in (*_measured(), *rows)}
    return [by_fault[name] for name in FAULTS if name in by_fault]


def _shown(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{key: value for key, value in row.items() if key not in DETAILS} for row in rows]


def _sum(row: dict[str, object]) -> dict[str, object]:
    """A row, together with the injections of its fault that were measured before."""
    from benchmarks.chaos.outcome import Outcome

    for before in _measured():
        if before["fault"] == row["fault"]:
            return {**row, **(Outcome.from_row(before) + Outcome.from_row(row)).row(str(row["fault"]))}
    return row


def _measured() -> list[dict[str, object]]:
    from benchmarks.result import RESULTS

    path = RESULTS / "chaos.json"
    return list(json.loads(path.read_text())["rows"]) if path.exists() else []


def _scale(arguments: argparse.Namespace, finish: Finish) -> int:
    from benchmarks import scale
    from benchmarks.scale_model import Cluster

    for key in ("simulators", "shards", "episode_s", "steps_per_s", "gbit"):
        if getattr(arguments, key) <= 0:
            raise ConfigError(f"--{key.replace('_', '-')}={getattr(arguments, key)}: expected more than 0")
    cluster = Cluster(
        simulators=arguments.simulators,
        shards=arguments.shards,
        episode_s=arguments.episode_s,
        steps_per_s=arguments.steps_per_s,
        network_bytes_s=arguments.gbit * 1e9 / 8,
    )
    return finish("scale", scale.run(cluster), arguments)
