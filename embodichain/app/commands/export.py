"""`embodichain export lerobot`: verified episodes to a LeRobotDataset."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from embodichain.app.commands.domains import DOMAIN_HELP, domain_name
from embodichain.app.commands.known import known_tasks
from embodichain.app.config import ConfigError

if TYPE_CHECKING:
    from embodichain.actors.recipes import RecipeStream
    from embodichain.app.recording import RecordedSession
    from embodichain.contracts import Episode

EXPORT_TEXT = """\
Make episodes, keep those that physics confirms, and write them to the new folder OUT as a LeRobotDataset v3.0: video,
state, action, instructions, statistics. OUT appears when it is whole. Recipes come from the training side of the
world, the same ones that a run of this seed draws, and stand in the dataset: `embodichain episode make --recipe`
makes any of its episodes again, bit for bit."""


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add `export`."""
    export = commands.add_parser("export", help="datasets for other tools")
    actions = export.add_subparsers(dest="action", metavar="lerobot", required=True)
    lerobot = actions.add_parser("lerobot", help="verified episodes as a LeRobotDataset v3.0", description=EXPORT_TEXT)
    lerobot.add_argument("out", metavar="OUT", help="folder to create")
    lerobot.add_argument("--task", nargs="+", required=True, metavar="NAME", help="one task or several")
    lerobot.add_argument("--episodes", type=int, default=20, metavar="N", help="of each task (default 20)")
    lerobot.add_argument("--seed", type=int, default=0, help="as the `seed` of a run (default 0)")
    lerobot.add_argument("--domain", type=domain_name, default="default", help=DOMAIN_HELP)
    lerobot.add_argument("--size", type=int, default=128, metavar="PIXELS", help="of the square frames (default 128)")
    lerobot.add_argument("--cameras", nargs="+", default=["front"], metavar="NAME", help="default: front")
    lerobot.add_argument("--fps", type=int, metavar="N", help="frames and rows a second (default: the control rate)")
    lerobot.add_argument("--no-video", action="store_true", help="no frames; needs no renderer")
    lerobot.add_argument("--json", action="store_true", help="print JSON, nothing else")
    lerobot.set_defaults(handler=_lerobot)


def _lerobot(arguments: argparse.Namespace) -> int:
    from embodichain.export import LeRobotWriter

    for key in ("episodes", "size"):
        if getattr(arguments, key) < 1:
            raise ConfigError(f"--{key}={getattr(arguments, key)}: expected at least 1")
    if arguments.size % 2:
        raise ConfigError(
            f"--size={arguments.size}: expected an even number of pixels; the video format halves colours"
        )
    streams = _streams(arguments)
    every = _steps_per_row(arguments)
    rejected: Counter[str] = Counter()
    try:
        with LeRobotWriter(arguments.out, cameras=arguments.cameras) as writer:
            session = _session(arguments, every)
            for episode in _episodes(streams, arguments.episodes, session, rejected):
                writer.add(episode)
            session.close()
    except (FileExistsError, BlockingIOError) as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise RuntimeError(f"export: {error}; {arguments.out} was not created") from error
    _say(arguments, writer, rejected)
    return 0


def _streams(arguments: argparse.Namespace) -> list[RecipeStream]:
    """A stream of recipes for each task."""
    from embodichain.actors.recipes import RecipeStream
    from tasks.session import sim_hash

    known_tasks(arguments.task, "--task")
    try:
        return [
            RecipeStream(weights={name: 1.0}, domain=arguments.domain, run_seed=arguments.seed, sim_hash=sim_hash())
            for name in dict.fromkeys(arguments.task)
        ]
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _steps_per_row(arguments: argparse.Namespace) -> int:
    from envs import CONTROL_HZ

    if arguments.fps is None:
        return 1
    if arguments.no_video:
        raise ConfigError(f"--fps={arguments.fps}: expected none with --no-video; rows come at the control rate")
    if arguments.fps < 1 or CONTROL_HZ % arguments.fps:
        raise ConfigError(f"--fps={arguments.fps}: expected a divisor of the control rate, {CONTROL_HZ:g}")
    return int(CONTROL_HZ // arguments.fps)


def _session(arguments: argparse.Namespace, every: int) -> RecordedSession:
    from embodichain.app.filming import need_renderer
    from embodichain.app.recording import RecordedSession
    from envs import RenderConfig

    if arguments.no_video:
        return RecordedSession(None)
    need_renderer("export lerobot")
    try:
        render = RenderConfig(cameras=tuple(arguments.cameras), width=arguments.size, height=arguments.size)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return RecordedSession(render, every=every)


def _episodes(
    streams: list[RecipeStream], count: int, session: RecordedSession, rejected: Counter[str]
) -> Iterator[Episode]:
    """`count` verified episodes of every stream, task by task, with a bar each."""
    from embodichain.app.recording import verified_episodes

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars = [progress.add_task(", ".join(stream.weights), total=count) for stream in streams]
        for stream, bar in zip(streams, bars, strict=True):
            yield from progress.track(verified_episodes(stream, count, session, rejected), task_id=bar, total=count)


def _say(arguments: argparse.Namespace, writer: object, rejected: Counter[str]) -> None:
    from embodichain.export import LeRobotReader

    out = Path(arguments.out)
    info = LeRobotReader(out).info
    megabytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    row = {
        "out": str(out),
        "episodes": info["total_episodes"],
        "rows": info["total_frames"],
        "instructions": info["total_tasks"],
        "fps": info["fps"],
        "megabytes": megabytes,
        "rejected": dict(rejected),
    }
    if arguments.json:
        print(json.dumps(row))
        return
    reasons = ", ".join(f"{reason} {n}" for reason, n in rejected.most_common()) or "none"
    held = f"{row['episodes']} episodes, {row['rows']} rows at {row['fps']} Hz, {row['instructions']} instructions"
    print(f"{out}: {held}, {megabytes:.1f} MB; rejected on the way: {reasons}")
    print(f"  load it: LeRobotDataset('local/{out.name}', root='{out}')")
