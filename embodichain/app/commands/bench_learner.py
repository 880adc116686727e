"""`embodichain bench memory` and `bench train-speed`: what remembering costs and is worth, and how fast learning is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from embodichain.app.config import ConfigError

Finish = Callable[..., int]
IMAGES = Path(__file__).parents[3] / "docs" / "images"
PRESETS = ("tiny", "laptop", "base")


def add_parsers(names: Any, finish: Finish) -> None:
    """Add both to the benchmarks; `finish` prints and writes their rows as those of any other."""
    memory = names.add_parser("memory", help="ttt, kv, window, none: bytes and time per step after 10 to 10 000 frames")
    memory.add_argument("--preset", choices=PRESETS, default="laptop", help="model size (default laptop)")
    memory.add_argument("--frames", type=int, default=10_000, metavar="T", help="the longest history (default 10000)")
    memory.add_argument("--rounds", type=int, default=15, help="times all cases take turns (default 15)")
    memory.set_defaults(tasks=None, handler=lambda arguments: _memory(arguments, finish))
    for parser in (memory,):
        parser.add_argument("--json", action="store_true", help="print the table as JSON, nothing else")


def _positive(arguments: argparse.Namespace, *keys: str) -> None:
    for key in keys:
        if getattr(arguments, key) <= 0:
            raise ConfigError(f"--{key.replace('_', '-')}={getattr(arguments, key)}: expected more than 0")


def _memory(arguments: argparse.Namespace, finish: Finish) -> int:
    from benchmarks import memory
    from benchmarks.result import print_rows

    _positive(arguments, "frames", "rounds")
    lengths = tuple(t for t in memory.LENGTHS if t <= arguments.frames)
    if not lengths:
        raise ConfigError(f"--frames={arguments.frames}: expected at least {memory.LENGTHS[0]}")
    if lengths != memory.LENGTHS:
        arguments.tasks = ["part"]  # a try is not written over the table
    with Progress(console=Console(stderr=True), disable=arguments.json) as progress:
        bar = progress.add_task("memories", total=len(memory.LAYOUTS) * len(memory.KINDS) + arguments.rounds)
        rows = memory.run(arguments.preset, lengths, arguments.rounds, lambda: progress.advance(bar))
    found = memory.findings(rows)
    if arguments.tasks is None:
        memory.plot(rows, IMAGES / "memory.png")
    if not arguments.json:
        print_rows("findings", found)
    return finish("memory", rows + found, arguments, rows)
