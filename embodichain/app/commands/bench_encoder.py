"""`embodichain bench encoder`: what a linear read-out finds in an image encoder's tokens, and in what is no encoder."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from embodichain.app.commands.domains import domain_name
from embodichain.app.config import ConfigError

Finish = Callable[..., int]
EPISODES = 120  # fewer are a try, which is not written over the table
DOMAINS = ("full", "default")


def add_parsers(names: Any, finish: Finish) -> None:
    """Add it to the benchmarks; `finish` prints and writes its rows as those of any other."""
    encoder = names.add_parser("encoder", help="linear probes of an image encoder against random weights and pixels")
    encoder.add_argument("--weights", default="embedded", help="as encoder.weights of a run (default embedded)")
    encoder.add_argument("--episodes", type=int, default=EPISODES, help=f"in each domain (default {EPISODES})")
    encoder.add_argument("--domains", nargs="+", type=domain_name, default=list(DOMAINS), help="default: full default")
    encoder.add_argument("--frames", metavar="DIR", help="keep the frames there, or take those that are there")
    encoder.add_argument("--json", action="store_true", help="print the table as JSON, nothing else")
    encoder.set_defaults(handler=lambda arguments: _encoder(arguments, finish))


def _encoder(arguments: argparse.Namespace, finish: Finish) -> int:
    from benchmarks import encoder
    from embodichain.app.filming import need_renderer

    if arguments.episodes < 2 * encoder.FOLDS:
        raise ConfigError(f"--episodes={arguments.episodes}: expected at least {2 * encoder.FOLDS}")
    need_renderer("bench encoder")
    keep = Path(arguments.frames) if arguments.frames else None
    rows: list[dict[str, object]] = []
    with Progress(console=Console(stderr=True), disable=arguments.json) as progress:
        bar = progress.add_task("domains", total=len(arguments.domains))
        for domain in arguments.domains:
            try:
                frames = encoder.frames_of(domain, arguments.episodes, keep)
                rows += encoder.run(frames, arguments.weights, domain)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            progress.advance(bar)
    usual = (arguments.weights, tuple(arguments.domains)) == ("embedded", DOMAINS) and arguments.episodes >= EPISODES
    arguments.tasks = None if usual else ["a try"]
    shown = [{k: v for k, v in row.items() if not k.endswith(("_low", "_high"))} for row in rows]
    return finish("encoder", rows, arguments, shown)
