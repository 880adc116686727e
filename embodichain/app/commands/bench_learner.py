"""`embodichain bench memory` and `bench train-speed`: what remembering costs and is worth, and how fast learning is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from embodichain.app.commands.bench_policy import row_line
from embodichain.app.settings import ConfigError, device_for
from embodichain.contracts import SCORING
from embodichain.telemetry.loglines import LogLines

Finish = Callable[..., int]
ENOUGH_ROUNDS, ENOUGH_SEEDS = 10, 200  # for figures that are kept
PRESETS = ("tiny", "laptop", "base", "large")


def add_parsers(names: Any, finish: Finish) -> None:
    """Add both to the benchmarks; `finish` prints and writes their rows as those of any other."""
    memory = names.add_parser("memory", help="ttt, kv, window, none: bytes and time per step after 10 to 10 000 frames")
    memory.add_argument("--preset", choices=PRESETS, default="laptop", help="model size (default laptop)")
    memory.add_argument("--frames", type=int, default=10_000, metavar="T", help="the longest history (default 10000)")
    memory.add_argument("--rounds", type=int, default=15, help="times all cases take turns (default 15)")
    loop = memory.add_argument_group("--closed-loop, a comparison on a task that needs memory")
    loop.add_argument("--closed-loop", action="store_true", help="instead: success of each kind on recall_lane")
    loop.add_argument("--folder", default="runs/bench_memory", help="for episodes and fits (default runs/bench_memory)")
    loop.add_argument("--episodes", type=int, default=1600, help="to learn from (default 1600)")
    loop.add_argument("--steps", type=int, default=6000, help="of each fit (default 6000)")
    loop.add_argument("--windows", type=int, default=16, help="per step (default 16)")
    loop.add_argument("--seeds", type=int, default=200, help="scored, the same for each kind (default 200)")
    loop.add_argument("--seed-range", choices=SCORING, default=SCORING[0], help="tune: while choosing settings")
    loop.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    memory.set_defaults(tasks=None, handler=lambda arguments: _memory(arguments, finish))
    speed = names.add_parser("train-speed", help="windows per second and model-FLOPs utilisation: bf16, compiled, ...")
    speed.add_argument("--preset", choices=PRESETS, default="laptop", help="model size (default laptop)")
    speed.add_argument("--windows", type=int, default=32, help="per step (default 32)")
    speed.add_argument("--threads", type=int, default=1, help="of torch on a CPU (default 1)")
    speed.add_argument("--rounds", type=int, default=10, help="times all cases take turns (default 10)")
    speed.add_argument("--gpu", action="store_true", help="on the GPU")
    speed.add_argument("--peak-tflops", type=float, metavar="P", help="compare with this, not a measured product")
    cases = "some of 'fp32', 'bf16', 'fp32 compiled', ... (default all; a compiled one takes minutes to begin)"
    speed.add_argument("--cases", nargs="+", metavar="CASE", help=cases)
    speed.set_defaults(tasks=None, handler=lambda arguments: _train_speed(arguments, finish))
    for parser in (memory, speed):
        parser.add_argument("--json", action="store_true", help="print the table as JSON, nothing else")


def _positive(arguments: argparse.Namespace, *keys: str) -> None:
    for key in keys:
        if getattr(arguments, key) <= 0:
            raise ConfigError(f"--{key.replace('_', '-')}={getattr(arguments, key)}: expected more than 0")


def _memory(arguments: argparse.Namespace, finish: Finish) -> int:
    from benchmarks import memory
    from benchmarks.result import print_rows

    if arguments.closed_loop:
        return _memory_task(arguments, finish)
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
    if not arguments.json:
        print_rows("findings", found)
    return finish("memory", rows + found, arguments, rows, lambda _, path: memory.plot(rows, path))


def _memory_task(arguments: argparse.Namespace, finish: Finish) -> int:
    from benchmarks import memory, memory_task

    _positive(arguments, "episodes", "steps", "windows", "seeds", "threads")
    job = memory_task.Job(
        kinds=memory.KINDS,
        folder=Path(arguments.folder).absolute(),
        episodes=arguments.episodes,
        steps=arguments.steps,
        windows=arguments.windows,
        seeds=arguments.seeds,
        seed_range=arguments.seed_range,
        threads=arguments.threads,
    )
    if arguments.seeds < ENOUGH_SEEDS or arguments.seed_range != SCORING[0]:
        arguments.tasks = ["part"]  # a try is not written over the table
    console = Console(stderr=True, quiet=arguments.json)
    rows, log = list[dict[str, object]](), LogLines(console)
    with console.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)
            log(text)

        for row in memory_task.run(job, say):  # each is said at once: the next one is half an hour away
            rows.append(row)
            console.print(row_line(row), highlight=False, soft_wrap=True)
    return finish("memory_task", rows, arguments, None, memory_task.plot)


def _train_speed(arguments: argparse.Namespace, finish: Finish) -> int:
    from benchmarks import train_speed

    _positive(arguments, "windows", "threads", "rounds")
    if arguments.peak_tflops is not None:
        _positive(arguments, "peak_tflops")
    job = train_speed.Job(
        size=arguments.preset,
        windows=arguments.windows,
        threads=arguments.threads,
        rounds=arguments.rounds,
        device=device_for(arguments.gpu, "--gpu"),
        peak=None if arguments.peak_tflops is None else 1e12 * arguments.peak_tflops,
    )
    cases = list(dict.fromkeys(arguments.cases or train_speed.CASES))
    for name in cases:
        if name not in train_speed.CASES:
            raise ConfigError(f"--cases {name!r}: expected some of {', '.join(map(repr, train_speed.CASES))}")
    arguments.tasks = None if arguments.rounds >= ENOUGH_ROUNDS and len(cases) == len(train_speed.CASES) else ["part"]
    with Progress(console=Console(stderr=True), disable=arguments.json) as progress:
        bar = progress.add_task("training steps", total=len(cases) + job.rounds)
        rows = train_speed.run(job, cases, lambda: progress.advance(bar))
    # Two tables: what a GPU did is not written over by what a laptop does.
    return finish("train_speed" if arguments.gpu else "train_speed_cpu", rows, arguments)
