"""`embodichain bench latency` and `bench world-model`: checkpoints in closed loop, under delay and under doubt."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track

from embodichain.app.commands.known import known_tasks
from embodichain.app.config import ConfigError
from embodichain.app.config_checks import check_mode

if TYPE_CHECKING:
    from benchmarks.kept import Kept

Finish = Callable[..., int]
DELAYS = [4.0, 8.0]
AHEAD = [(0.5, 0.25), (0.5, 0.75), (0.5, 0.0), (1.0, 0.5), (1.0, 1.0)]


def add_parsers(names: Any, finish: Finish) -> None:
    """Add both to the benchmarks; `finish` prints and writes their rows as those of any other."""
    latency = names.add_parser(
        "latency", help="sync, sync in one step a flow, naive async and SAI: blocking latency, and success under delay"
    )
    latency.add_argument("--delays", type=float, nargs="+", default=DELAYS, metavar="STEPS", help=_DELAYS)
    latency.add_argument(
        "--ahead",
        type=_flow_times,
        nargs="+",
        default=AHEAD,
        metavar="VIDEO:ACTION",
        help="flow times to which SAI integrates either flow ahead (default "
        + " ".join(f"{video:g}:{action:g}" for video, action in AHEAD)
        + ")",
    )
    latency.set_defaults(handler=lambda arguments: _latency(arguments, finish))
    world = names.add_parser("world-model", help="success when the imagined frame is exchanged for others")
    world.add_argument("--baseline", metavar="CHECKPOINT", help="a plain policy, scored on the same seeds")
    world.add_argument("--heldout", type=int, default=20, metavar="N", help="held-out episodes (default 20)")
    world.set_defaults(handler=lambda arguments: _world_model(arguments, finish))
    for parser in (latency, world):
        parser.add_argument("checkpoint", help="runs/<name>/checkpoints/step_N, or runs/<name> for the latest")
        parser.add_argument("--task", metavar="NAME", help="default: the longest of the run's tasks")
        parser.add_argument("--seeds", type=int, default=400, help="paired seeds; fewer are not kept (default 400)")
        parser.add_argument("--json", action="store_true", help="print the table as JSON, nothing else")


_DELAYS = "control steps that a whole chunk takes to compute (default 4 8)"
ENOUGH = 400  # seeds that make a row of the table


def _flow_times(text: str) -> tuple[float, float]:
    """`VIDEO:ACTION` -> both numbers."""
    try:
        times = [float(part) for part in text.split(":")]
    except ValueError:
        times = []
    if len(times) != 2 or not all(0 <= s <= 1 for s in times):
        raise argparse.ArgumentTypeError(f"{text}: expected two flow times in [0, 1], as 1:0.5")
    return times[0], times[1]


def _latency(arguments: argparse.Namespace, finish: Finish) -> int:
    from benchmarks import latency

    whole = set(DELAYS) <= set(arguments.delays) and set(AHEAD) <= set(arguments.ahead)
    config, path, task, kept = _subject(arguments, "latency", whole=whole)
    check_mode(replace(config, evaluation=replace(config.evaluation, mode="sai")))
    if min(arguments.delays) < 0:
        raise ConfigError(f"--delays={min(arguments.delays)}: expected at least 0")
    sweep = latency.settings(arguments.delays, arguments.ahead)
    rows = _rows(latency.run(config, path, task, arguments.seeds, sweep, kept), len(sweep), arguments)
    shown = ("mode", "ahead", "delay_steps", "passes_blocking", "latency_steps", "answer_ms", "n", "success", "low",
             "high", "points_lost")  # fmt: skip
    return finish("latency", rows, arguments, [{key: row[key] for key in shown} for row in rows], latency.plot)


def _world_model(arguments: argparse.Namespace, finish: Finish) -> int:
    from benchmarks import world_model
    from embodichain.app.commands.checkpoints import find_checkpoint

    config, path, task, kept = _subject(arguments, "world_model", whole=True)
    if arguments.heldout < 2:
        raise ConfigError(f"--heldout={arguments.heldout}: expected at least 2, to exchange frames between")
    baseline = None
    if arguments.baseline:
        folder, step, plain = find_checkpoint(arguments.baseline)
        baseline = plain, folder.checkpoint(step)
    measuring = world_model.run(config, path, task, arguments.seeds, arguments.heldout, baseline, kept)
    return finish("world_model", _rows(measuring, None, arguments), arguments)


def _subject(arguments: argparse.Namespace, bench: str, *, whole: bool) -> tuple[Any, str, str, Kept]:
    """Configuration, checkpoint and task that are meant, and what an earlier start of the same has measured.

    Settings that do not make the `whole` table are a try, as few seeds are.
    """
    from benchmarks.kept import Kept
    from embodichain.app.commands.checkpoints import find_checkpoint
    from embodichain.app.version import code_version
    from tasks.registry import task_info

    folder, step, config = find_checkpoint(arguments.checkpoint)
    if arguments.seeds < 1:
        raise ConfigError(f"--seeds={arguments.seeds}: expected at least 1")
    longest = max(config.active_tasks, key=lambda name: task_info(name).horizon)
    task = arguments.task or longest
    known_tasks([task], "--task")
    if task not in config.active_tasks:
        raise ConfigError(f"--task={task}: the run learned {', '.join(config.active_tasks)}; expected one of them")
    whole = whole and arguments.seeds >= ENOUGH and task == longest
    arguments.tasks = None if whole else [task]  # a try is not written over the table
    path, code = folder.checkpoint(step), code_version()
    keep = os.access(folder.path, os.W_OK) and not code.endswith("-dirty")  # which does not say what code it was
    kept = Kept(
        folder.path / f"bench_{bench}" if keep else None, step=step, task=task, seeds=arguments.seeds, code=code
    )
    return config, path, task, kept


def _rows(
    measuring: Iterable[dict[str, object]], total: int | None, arguments: argparse.Namespace
) -> list[dict[str, object]]:
    """All rows; each is also said as soon as it is known, since they take minutes."""
    console, rows = Console(stderr=True), list[dict[str, object]]()
    try:
        for row in track(measuring, "settings", total=total, console=console, disable=arguments.json):
            rows.append(row)
            if not arguments.json:
                console.print(row_line(row), highlight=False, soft_wrap=True)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return rows


def row_line(row: dict[str, object]) -> str:
    """What a row is of, and its figures."""
    shown = {key: f"{value:.3g}" if isinstance(value, float) else str(value) for key, value in row.items()}
    return ", ".join(value if isinstance(row[key], str) else f"{key} {value}" for key, value in shown.items() if value)
