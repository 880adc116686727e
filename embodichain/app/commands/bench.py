"""`embodichain bench NAME`: one benchmark; prints a table, writes benchmarks/results/NAME.json."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, track

from embodichain.app.commands import (
    bench_chaos,
    bench_encoder,
    bench_law,
    bench_learner,
    bench_policy,
    bench_record,
    bench_sight,
)
from embodichain.app.commands.bench_policy import row_line
from embodichain.app.commands.domains import DOMAIN_HELP, domain_name
from embodichain.app.commands.known import known_tasks, training_tasks
from embodichain.app.config import ConfigError
from embodichain.app.version import code_version
from embodichain.telemetry.loglines import LogLines

IMAGES = Path(__file__).parents[3] / "docs" / "images"


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add `bench`."""
    bench = commands.add_parser("bench", help="one benchmark: prints a table, writes json")
    names = bench.add_subparsers(dest="name", metavar="NAME", required=True)
    rollout = _add_rollout_parser(names)
    catalogue = names.add_parser(
        "catalogue", help="every task: expert success, cost, and that neither idling nor replaying solves it"
    )
    catalogue.add_argument(
        "--seeds", type=int, default=200, help="seeds of each expert (default 200; fewer are a try, and not kept)"
    )
    catalogue.add_argument(
        "--trials", type=int, default=50, help="trials of idling and of replaying (default 50; fewer are not kept)"
    )
    catalogue.add_argument("--processes", type=int, default=2, help="tasks measured at once (default 2)")
    catalogue.add_argument(
        "--again", action="store_true", help="also tasks that were measured on today's simulator already"
    )
    catalogue.set_defaults(handler=_catalogue)
    reach = names.add_parser("reach", help="how evenly grasps and arm starts fill what the arms can reach")
    reach.add_argument("--episodes", type=int, default=64, help="episodes of each task and block (default 64)")
    reach.add_argument("--blocks", type=int, default=3, help="blocks of consecutive seeds (default 3)")
    reach.set_defaults(handler=_reach)

    exact = names.add_parser("exact", help="random recipes made again in other processes: how many are bit-exact")
    exact.add_argument("--recipes", type=int, default=200, help="default 200")
    exact.add_argument("--seed", type=int, default=0, help="which recipes (default 0)")
    exact.set_defaults(handler=_exact)
    archive = names.add_parser(
        "archive", help="archives: bytes per episode, writing and reading, against zarr's library"
    )
    archive.add_argument("--episodes", type=int, default=200, help="of each kind (default 200)")
    archive.add_argument("--folder", metavar="DIR", help="on the disk to measure (default: the temporary folder)")
    archive.set_defaults(handler=_archive)
    generate = names.add_parser("generate", help="a long generation: accepted, rejected by reason, what broke")
    generate.add_argument("--recipes", type=int, default=10_000, help="default 10000")
    generate.add_argument("--actors", type=int, default=2, help="simulator processes (default 2)")
    generate.add_argument("--seed", type=int, default=0, help="of the run (default 0)")
    generate.add_argument("--domain", type=domain_name, default="default", help=DOMAIN_HELP)
    generate.set_defaults(handler=_generate)

    recovery = names.add_parser("recovery", help="errors injected, seen and put right, task by task")
    recovery.add_argument("--seeds", type=int, default=40, help="recipes per task (default 40)")
    recovery.add_argument("--first", type=int, default=0, metavar="I", help="index of the first seed (default 0)")
    recovery.set_defaults(handler=_recovery)
    mimic = names.add_parser("mimic", help="demonstrations carried over to new scenes: how many physics accepts")
    mimic.add_argument("--seeds", type=int, default=60, help="new scenes per task (default 60)")
    mimic.add_argument("--parents", type=int, default=10, help="demonstrations per task (default 10)")
    mimic.set_defaults(handler=_mimic)
    _add_stream_parsers(names)
    everything = (rollout, catalogue, recovery, mimic, exact)
    others = ((reach, "pick_place"), (generate, "all for training"), (archive, "three short ones"))
    for parser, tasks in (*((parser, "all") for parser in everything), *others):
        parser.add_argument("--tasks", nargs="+", metavar="NAME", help=f"default: {tasks}")
        parser.add_argument("--json", action="store_true", help="print the table as JSON, nothing else")
    for parser in names.choices.values():
        bench_record.add_argument(parser)
        parser.set_defaults(handler=partial(_apart, parser.get_default("handler")))


def _apart(handler: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a benchmark; with `--json`, what libraries print goes to the other stream."""
    arguments.stdout = sys.stdout
    bench_record.check(arguments.mlflow)
    with redirect_stdout(sys.stderr) if arguments.json else nullcontext():
        return handler(arguments)


def _add_rollout_parser(names: argparse._SubParsersAction) -> argparse.ArgumentParser:
    rollout = names.add_parser("rollout", help="the actor pool against a bare loop; a rendered frame against a step")
    rollout.add_argument("--episodes", type=int, default=400, help="episodes on each side (default 400)")
    rollout.add_argument("--actors", type=int, default=2, help="actors of the pool (default 2)")
    rollout.add_argument(
        "--rounds", type=int, default=2, help="times the pool is measured between bare loops (default 2)"
    )
    rollout.add_argument("--warm-up", type=int, metavar="N", help="episodes before measuring (default 20 per actor)")
    rollout.add_argument(
        "--all",
        action="store_true",
        help="instead: every task alone, physics only and rendered; memory over N episodes",
    )
    rollout.add_argument(
        "--memory-episodes",
        type=int,
        default=1000,
        metavar="N",
        help="with --all: episodes of one process (default 1000)",
    )
    rollout.set_defaults(handler=_rollout)
    return rollout


def _add_stream_parsers(names: argparse._SubParsersAction) -> None:
    """Add the benchmarks of the replay, which know no tasks."""
    reuse = names.add_parser("reuse", help="the reuse bound under 4 consumers and killed shards, recounted")
    reuse.add_argument("--draws", type=int, default=1_000_000, help="windows to deliver (default 1000000)")
    reuse.add_argument("--max-reuse", type=int, default=16, help="the bound (default 16)")
    reuse.set_defaults(handler=_reuse)
    fresh_rate = names.add_parser("fresh-rate", help="fresh pairs per learner step: asked for, and counted")
    fresh_rate.add_argument(
        "--targets",
        type=float,
        nargs="+",
        default=[0.25, 1.0, 4.0],
        help="fresh pairs per step, as multiples of the step's windows (default 0.25 1 4)",
    )
    fresh_rate.add_argument("--steps", type=int, default=1000, help="learner steps per target (default 1000)")
    fresh_rate.set_defaults(handler=_fresh_rate)
    replay = names.add_parser("replay", help="batches and ingest in MB/s against NumPy, memcpy, torchrl and cpprb")
    replay.add_argument("--rounds", type=int, default=7, help="times the contenders take turns (default 7)")
    replay.add_argument("--batches", type=int, default=60, help="batches of each in a round (default 60)")
    replay.add_argument(
        "--seconds", type=float, default=4.0, help="of each number of shards and consumers; 0 skips them (default 4)"
    )
    replay.add_argument(
        "--workloads", nargs="+", choices=("image", "pose"), default=["image", "pose"], help="default: both"
    )
    replay.set_defaults(handler=_replay)
    stall = names.add_parser("stall", help="a learner fed from the replay against the same fed from memory")
    stall.add_argument("config", nargs="?", default="configs/quickstart.yaml", help="whose model, batch and window")
    stall.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the configuration")
    stall.add_argument("--rounds", type=int, default=10, help="times the two sides take turns (default 10)")
    stall.add_argument("--steps", type=int, default=60, help="optimiser steps of each side in a round (default 60)")
    stall.set_defaults(handler=_stall)
    bench_chaos.add_parsers(names, _finish)
    bench_policy.add_parsers(names, _finish)
    bench_learner.add_parsers(names, _finish)
    bench_law.add_parsers(names, _finish)
    bench_encoder.add_parsers(names, _finish)
    bench_sight.add_parsers(names, _finish)
    for parser in (reuse, fresh_rate, replay, stall):
        parser.set_defaults(tasks=None)
        parser.add_argument("--json", action="store_true", help="print the table as JSON, nothing else")


def _rollout(arguments: argparse.Namespace) -> int:
    from benchmarks import rollout, rollout_all
    from embodichain.doctor import renderer_available

    tasks, render = _check(arguments, "episodes", "actors", "rounds", "memory_episodes"), renderer_available()[0]
    if arguments.all:
        measuring = rollout_all.run(tasks, arguments.episodes, arguments.memory_episodes, render=render)
        rows = list(track(measuring, "rows", console=Console(stderr=True), disable=arguments.json))
        return _finish("rollout_all", rows, arguments)
    warm_up = 20 * arguments.actors if arguments.warm_up is None else arguments.warm_up
    if warm_up < 1:
        raise ConfigError(f"--warm-up={warm_up}: expected at least 1")
    rows = rollout.run(tasks, arguments.episodes, arguments.actors, arguments.rounds, warm_up, render=render)
    return _finish("rollout", rows, arguments)


def _catalogue(arguments: argparse.Namespace) -> int:
    from benchmarks import catalogue
    from benchmarks.result import RESULTS

    tasks = _check(arguments, "seeds", "trials", "processes")
    tried = arguments.seeds < catalogue.SEEDS or arguments.trials < catalogue.TRIALS
    folder = Path(tempfile.mkdtemp(prefix="bench_catalogue_")) if tried else RESULTS
    todo = tasks if arguments.again else catalogue.lacking(tasks, arguments.seeds, arguments.trials, folder)
    measuring = catalogue.run(todo, arguments.seeds, arguments.trials, arguments.processes)
    progress = Console(stderr=True)
    if len(todo) < len(tasks):
        progress.print(f"{len(tasks) - len(todo)} of {len(tasks)} tasks are measured already; --again measures all")
    for row in track(measuring, "tasks", total=len(todo), console=progress, disable=arguments.json):
        catalogue.keep(row, _command(), folder)
    known = catalogue.measured(folder)
    rows = [known[task] for task in tasks]
    shown = [{"name": row["name"], **catalogue.figures(row)} for row in rows]
    return _show("catalogue", rows, arguments, [folder / "catalogue.json"], shown)


def _reach(arguments: argparse.Namespace) -> int:
    from benchmarks import reach

    tasks = _check(arguments, "episodes", "blocks")[: None if arguments.tasks else 1]  # pick_place stands first
    return _finish("reach", reach.run(tasks, arguments.episodes, arguments.blocks), arguments)


def _exact(arguments: argparse.Namespace) -> int:
    from benchmarks import exact
    from tasks.domain import LEVELS

    tasks = _check(arguments, "recipes")
    return _finish("exact", exact.run(tasks, arguments.recipes, tuple(LEVELS), arguments.seed), arguments)


def _archive(arguments: argparse.Namespace) -> int:
    from benchmarks import archive

    tasks = arguments.tasks or list(archive.TASKS)
    _check(arguments, "episodes")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rows = archive.run(tasks, arguments.episodes, Path(folder))
    return _finish("archive", rows, arguments)


def _generate(arguments: argparse.Namespace) -> int:
    from benchmarks import generate
    from benchmarks.result import print_rows

    named = _check(arguments, "recipes", "actors")
    tasks = named if arguments.tasks else training_tasks()
    rows: list[dict[str, object]] = []
    console = Console(stderr=True, quiet=arguments.json)
    log = LogLines(console)
    with Progress(console=console) as progress:
        bar = progress.add_task("recipes", total=arguments.recipes)
        try:
            for rows in generate.run(tasks, arguments.recipes, arguments.actors, arguments.domain, arguments.seed):
                progress.update(bar, completed=int(str(rows[-1]["recipes"])))
                log(row_line(rows[-1]))
        except ValueError as error:
            raise ConfigError(str(error)) from error
        except (RuntimeError, KeyboardInterrupt):
            print_rows("bench generate, as far as it came", rows)
            raise
    return _finish("generate", rows, arguments)


def _recovery(arguments: argparse.Namespace) -> int:
    from benchmarks import recovery

    tasks = _check(arguments, "seeds")
    measuring = recovery.run(tasks, arguments.seeds, arguments.first)
    rows = list(track(measuring, "tasks", total=len(tasks), console=Console(stderr=True), disable=arguments.json))
    return _finish("recovery", rows, arguments)


def _mimic(arguments: argparse.Namespace) -> int:
    from benchmarks import mimic
    from tasks.mimic import imitable
    from tasks.registry import task_info

    names = _check(arguments, "seeds", "parents")
    tasks = [name for name in names if imitable(task_info(name))]
    if arguments.tasks and len(tasks) < len(names):
        missing = next(name for name in names if name not in tasks)
        raise ConfigError(f"task={missing}: grasps nothing to imitate; expected a task that grasps")
    measuring = mimic.run(tasks, arguments.seeds, arguments.parents)
    rows = list(track(measuring, "tasks", total=len(tasks), console=Console(stderr=True), disable=arguments.json))
    return _finish("mimic", rows, arguments)


def _reuse(arguments: argparse.Namespace) -> int:
    from benchmarks import reuse

    _check(arguments, "draws", "max_reuse")
    row: dict[str, object] = {}
    with Progress(console=Console(stderr=True), disable=arguments.json) as progress:
        bar = progress.add_task("windows", total=arguments.draws)
        for row in reuse.run(arguments.draws, arguments.max_reuse):
            progress.update(bar, completed=float(str(row["windows"])))
    return _finish("reuse", [row], arguments, [{"figure": name, "value": value} for name, value in row.items()])


def _fresh_rate(arguments: argparse.Namespace) -> int:
    from benchmarks import fresh_rate

    _check(arguments, "steps")
    try:
        measuring = fresh_rate.run(arguments.targets, arguments.steps)
        targets = len(arguments.targets)
        rows = list(track(measuring, "targets", total=targets, console=Console(stderr=True), disable=arguments.json))
    except ValueError as error:
        raise ConfigError(f"--targets: {error}") from error
    return _finish("fresh_rate", rows, arguments)


def _replay(arguments: argparse.Namespace) -> int:
    from benchmarks import replay

    _check(arguments, "rounds", "batches")
    measuring = replay.run(tuple(arguments.workloads), arguments.rounds, arguments.batches, arguments.seconds)
    groups = track(measuring, "groups", console=Console(stderr=True), disable=arguments.json)
    return _finish("replay", [row for group in groups for row in group], arguments)


def _stall(arguments: argparse.Namespace) -> int:
    from benchmarks import stall
    from embodichain.app.config import load_config

    _check(arguments, "rounds", "steps")
    config = load_config(arguments.config, arguments.overrides)
    return _finish("stall", list(stall.run(config, arguments.rounds, arguments.steps)), arguments)


def _check(arguments: argparse.Namespace, *counts: str) -> list[str]:
    """The tasks that are meant. Raises `ConfigError` for an unknown one, and for a count below 1."""
    from tasks.registry import task_names

    for key in counts:
        if getattr(arguments, key) < 1:
            raise ConfigError(f"--{key}={getattr(arguments, key)}: expected at least 1")
    return known_tasks(arguments.tasks or task_names())


def _finish(
    bench: str,
    rows: list[dict[str, object]],
    arguments: argparse.Namespace,
    shown: list[dict[str, object]] | None = None,
    plot: Callable[[list[dict[str, object]], Path], object] | None = None,
) -> int:
    """Print `shown`, or else the rows, and write the rows: not those of some tasks alone over those of all.

    `plot` draws them into a picture, which goes beside a try's rows and among the documents' pictures otherwise.
    """
    from benchmarks.result import RESULTS, write_result

    folder = Path(tempfile.mkdtemp(prefix=f"bench_{bench}_")) if arguments.tasks else RESULTS
    files = [write_result(bench, _command(), rows, folder)]
    if plot is not None:
        files.append((folder if arguments.tasks else IMAGES) / f"{bench}.png")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        plot(rows, files[-1])
    return _show(bench, rows, arguments, files, shown)


def _command() -> str:
    return f"embodichain {shlex.join(sys.argv[1:])}"


def _show(
    bench: str,
    rows: list[dict[str, object]],
    arguments: argparse.Namespace,
    files: Sequence[Path],
    shown: list[dict[str, object]] | None = None,
) -> int:
    """Print `shown`, or else the rows, and where they are (`--json`: the rows alone); record them if wanted."""
    from benchmarks.result import machine, print_rows

    if arguments.json:
        print(json.dumps(rows), file=arguments.stdout)
    else:
        print_rows(f"bench {bench}", shown or rows)
        print(f"written to {' and '.join(map(str, files))}")
    if arguments.mlflow is not None:
        about = {"command": _command(), "machine": machine(), "code_version": code_version()}
        where = bench_record.record(arguments.mlflow, bench, about, files)
        if not arguments.json:
            print(f"recorded in {where}")
    return 0
