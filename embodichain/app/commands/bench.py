"""`embodichain bench NAME`: one benchmark; prints a table, writes benchmarks/results/NAME.json."""

from __future__ import annotations

import argparse
import json
import shlex
import sys

from embodichain.app.config import ConfigError


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add `bench`."""
    bench = commands.add_parser("bench", help="one benchmark: prints a table, writes json")
    names = bench.add_subparsers(dest="name", metavar="NAME", required=True)
    rollout = names.add_parser("rollout", help="the actor pool against a bare loop; a rendered frame against a step")
    rollout.add_argument("--episodes", type=int, default=400, help="episodes on each side (default 400)")
    rollout.add_argument("--actors", type=int, default=2, help="actors of the pool (default 2)")
    rollout.add_argument(
        "--rounds", type=int, default=2, help="times the pool is measured between bare loops (default 2)"
    )
    rollout.add_argument("--tasks", nargs="+", metavar="NAME", help="default: all")
    rollout.add_argument("--json", action="store_true", help="print the table as JSON, nothing else")
    rollout.set_defaults(handler=_rollout)


def _rollout(arguments: argparse.Namespace) -> int:
    from benchmarks import rollout
    from benchmarks.result import print_rows, write_result
    from embodichain.doctor import renderer_available
    from tasks.registry import task_names

    for key in ("episodes", "actors", "rounds"):
        if getattr(arguments, key) < 1:
            raise ConfigError(f"--{key}={getattr(arguments, key)}: expected at least 1")
    tasks = arguments.tasks or task_names()
    for task in tasks:
        if task not in task_names():
            raise ConfigError(f"task={task}: unknown task; expected one of {', '.join(task_names())}")
    rows = rollout.run(tasks, arguments.episodes, arguments.actors, arguments.rounds, render=renderer_available()[0])
    path = write_result("rollout", f"embodichain {shlex.join(sys.argv[1:])}", rows)
    if arguments.json:
        print(json.dumps(rows))
    else:
        print_rows("bench rollout", rows)
        print(f"written to {path}")
    return 0
