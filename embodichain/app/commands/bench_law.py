"""`embodichain bench law`: how often the analysis of a sweep says what is true."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import Progress

Finish = Callable[..., int]


def add_parsers(names: Any, finish: Finish) -> None:
    """Add it to the benchmarks; `finish` prints and writes its rows as those of any other."""
    law = names.add_parser("law", help="made-up sweeps with known laws: how often the analysis says what is true")
    law.add_argument("--sweeps", type=int, default=100, help="per world (default 100)")
    law.add_argument("--seeds", type=int, default=3, help="training seeds per level (default 3)")
    law.add_argument("--sigma", type=float, default=0.05, help="noise of log error between seeds (default 0.05)")
    law.add_argument("--resamples", type=int, default=200, help="of every bootstrap (default 200)")
    law.add_argument("--json", action="store_true", help="print the table as JSON, nothing else")
    law.set_defaults(tasks=None, handler=lambda arguments: _law(arguments, finish))


def _law(arguments: argparse.Namespace, finish: Finish) -> int:
    from benchmarks.law import TRUTH, run

    with Progress(console=Console(stderr=True), disable=arguments.json) as progress:
        bar = progress.add_task("sweeps", total=len(TRUTH) * arguments.sweeps)
        rows = list(
            run(
                arguments.sweeps,
                arguments.seeds,
                arguments.sigma,
                arguments.resamples,
                lambda: progress.advance(bar),
            )
        )
    return finish("law", rows, arguments)
