"""`embodichain tasks list | show | record | gallery`: the task catalogue and its experts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from embodichain.app.commands.domains import DOMAIN_HELP, domain_name
from embodichain.app.commands.known import known_tasks
from embodichain.app.config import ConfigError
from embodichain.contracts import seed_range

WIDE = 140  # columns of a terminal that leave room for descriptions


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add `tasks`."""
    tasks = commands.add_parser("tasks", help="the task catalogue; expert success; a video of one")
    actions = tasks.add_subparsers(dest="action", metavar="list|show|record|gallery", required=True)
    listing = actions.add_parser("list", help="every task, a row each")
    listing.add_argument("--json", action="store_true", help="print the table as JSON, nothing else")
    listing.set_defaults(handler=_list)
    show = actions.add_parser("show", help="one task: let its expert try N seeds, print success and rejections")
    show.add_argument("name")
    show.add_argument("--seeds", type=int, default=20, metavar="N", help="seeds to try (default 20)")
    show.add_argument("--domain", type=domain_name, default="default", help=DOMAIN_HELP)
    show.add_argument("--json", action="store_true", help="print the table as JSON, nothing else")
    show.set_defaults(handler=_show)
    record = actions.add_parser("record", help="a video of the expert on one task")
    record.add_argument("name")
    record.add_argument("--seeds", type=int, default=3, metavar="N", help="episodes in the video (default 3)")
    record.add_argument("--first", type=int, default=0, metavar="I", help="index of the first seed (default 0)")
    record.add_argument("--domain", type=domain_name, default="default", help=DOMAIN_HELP)
    record.add_argument("--out", metavar="FILE", help="default: runs/videos/<name>.mp4")
    record.add_argument("--every", type=int, default=2, metavar="K", help="control steps per frame (default 2)")
    record.set_defaults(handler=_record)
    gallery = actions.add_parser("gallery", help="a page with pictures and a video of every task in every stage")
    gallery.add_argument("--out", metavar="DIR", default="runs/gallery", help="default: %(default)s")
    gallery.add_argument("--seed", type=int, default=2, help="index of the seed (default 2)")
    gallery.add_argument("--tasks", nargs="+", metavar="NAME", help="default: all")
    gallery.add_argument("--domains", nargs="+", type=domain_name, metavar="DOMAIN", help="default: one per stage")
    gallery.set_defaults(handler=_gallery)


def _check_count(key: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"--{key}={value}: expected at least 1")


def _list(arguments: argparse.Namespace) -> int:
    from benchmarks.catalogue import figures, measured
    from tasks.registry import task_info, task_names
    from tasks.session import sim_hash

    known = measured()
    rows: list[dict[str, Any]] = []
    for name in task_names():
        info = task_info(name)
        rows.append(
            {
                "name": info.name,
                "family": info.family,
                "split": info.split,
                "arms": info.arms,
                "segments": list(info.segments),
                "horizon": info.horizon,
                "description": info.description,
                "measured": known.get(name),
            }
        )
    if arguments.json:
        print(json.dumps(rows))
        return 0
    shown = {name: figures(row) for name, row in known.items()}
    columns = [column for column in next(iter(shown.values()), {}) if column != "rejected"]
    console = Console()
    described = ["description"] if console.width >= WIDE else []
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("name", "split", "arms", "skills", "steps", *columns):
        table.add_column(column, no_wrap=True)
    for column in described:
        table.add_column(column)
    for row in rows:
        plain = (
            row["name"],
            row["split"].removesuffix("out"),
            row["arms"],
            str(len(row["segments"])),
            str(row["horizon"]),
        )
        measures = (shown.get(row["name"], {}).get(column, "") for column in columns)
        table.add_row(*plain, *measures, *(row[column] for column in described))
    console.print(table)
    console.print(_families(rows))
    if columns:
        console.print(
            "expert: its success with the 95 % interval; /min: its episodes a core-minute; idle, replay: success in % "
            "of doing nothing, and of the nearest training scene's actions"
        )
    stale = sorted({row["date"] for row in known.values() if row["sim_hash"] != sim_hash(row["name"])})
    if stale:
        console.print(f"figures of {', '.join(stale)}: the simulator has changed since; `embodichain bench catalogue`")
    return 0


def _families(rows: list[dict[str, Any]]) -> str:
    """The tasks' families in a line: a column would say most names twice, and 80 columns have no room for it."""
    others: dict[str, list[str]] = {}
    for row in rows:
        if row["family"] != row["name"]:
            others.setdefault(row["family"], []).append(row["name"])
    count = len({row["family"] for row in rows})
    listed = "; ".join(f"{', '.join(names)}: {family}" for family, names in others.items())
    return f"{count} families, each named as its task" + (f", but {listed}" if listed else "")


def _show(arguments: argparse.Namespace) -> int:
    from embodichain.evaluation.experts import expert_score
    from tasks.session import TaskSession

    known_tasks([arguments.name])
    _check_count("seeds", arguments.seeds)
    session, seeds = TaskSession(render=None), range(arguments.seeds)
    tried = seeds if arguments.json else track(seeds, description=arguments.name, console=Console(stderr=True))
    row = expert_score(arguments.name, tried, session, arguments.domain)
    session.close()
    if arguments.json:
        print(json.dumps(row))
        return 0
    console = Console()
    console.print(
        f"[bold]{row['name']}[/bold] ({row['domain']}): expert success {row['success_rate']:.1%} of {row['n']}  "
        f"(Wilson 95 %: {row['low']:.1%} to {row['high']:.1%})"
    )
    per_minute = row["episodes_per_core_minute"]
    console.print(f"mean length {row['mean_steps']:.0f} control steps; {per_minute:.0f} episodes a core-minute")
    console.print("rejected: " + (", ".join(f"{reason} {n}" for reason, n in row["rejected"].items()) or "none"))
    return 0


def _record(arguments: argparse.Namespace) -> int:
    from embodichain.app.filming import film_episode, filmed_session, recipe_of_test
    from embodichain.evaluation.evaluator import write_video

    known_tasks([arguments.name])
    _check_count("seeds", arguments.seeds)
    _check_count("every", arguments.every)
    session = filmed_session("tasks record", every=arguments.every)
    frames: list[np.ndarray] = []
    for index in track(range(arguments.first, arguments.first + arguments.seeds), description="episodes"):
        frames.extend(film_episode(session, recipe_of_test(arguments.name, index, arguments.domain)).frames)
    path = Path(arguments.out or f"runs/videos/{arguments.name}.mp4")
    write_video(path, frames, session.control_hz / arguments.every)
    print(f"{path}: {len(frames)} frames")
    return 0


def _gallery(arguments: argparse.Namespace) -> int:
    from embodichain.app.gallery import DOMAINS, write_gallery
    from tasks.registry import task_names

    tasks = known_tasks(arguments.tasks or task_names())
    if not 0 <= arguments.seed < seed_range("test").stop:
        raise ConfigError(f"--seed={arguments.seed}: expected 0 to {seed_range('test').stop - 1}")
    page = write_gallery(Path(arguments.out), tasks, arguments.seed, arguments.domains or DOMAINS)
    print(f"{page}: {len(tasks)} tasks")
    return 0
