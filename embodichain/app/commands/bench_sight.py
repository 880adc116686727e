"""`embodichain bench sight CONFIG`: where objects and goals are, read out of a run's images by number of scenes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import Progress

from embodichain.app.commands.known import known_tasks, training_tasks
from embodichain.app.config import ConfigError, load_config

Finish = Callable[..., int]
SCENES = 240  # fewer are a try, which is not written over the table


def add_parsers(names: Any, finish: Finish) -> None:
    """Add it to the benchmarks; `finish` prints and writes its rows as those of any other."""
    sight = names.add_parser("sight", help="which tasks can be seen: objects and goals, linearly, by number of scenes")
    sight.add_argument("config", nargs="?", default="configs/vision.yaml", help="whose encoder, cameras and domain")
    sight.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the configuration")
    sight.add_argument("--scenes", type=int, default=SCENES, help=f"of each task (default {SCENES})")
    sight.add_argument("--tasks", nargs="+", metavar="NAME", help="default: all for training")
    sight.add_argument("--json", action="store_true", help="print the table as JSON, nothing else")
    sight.set_defaults(handler=lambda arguments: _sight(arguments, finish))


def _sight(arguments: argparse.Namespace, finish: Finish) -> int:
    from benchmarks import sight
    from embodichain.app.components import make_encoder, make_session
    from embodichain.app.filming import need_renderer

    config = load_config(arguments.config, arguments.overrides)
    if config.encoder.name == "state":
        raise ConfigError("encoder.name=state: it is told where things are, expected an encoder of images")
    if arguments.scenes < sight.LEAST:
        raise ConfigError(f"--scenes={arguments.scenes}: expected at least {sight.LEAST}")
    tasks = known_tasks(arguments.tasks or training_tasks())
    need_renderer("bench sight")
    try:
        encoder = make_encoder(config)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    session = make_session(config, render=True)
    rows: list[dict[str, object]] = []
    try:
        with Progress(console=Console(stderr=True), disable=arguments.json) as progress:
            bar = progress.add_task("scenes", total=len(tasks) * arguments.scenes)
            for task in tasks:
                scenes = sight.first_frames(
                    task, config.domain, arguments.scenes, session, encoder, lambda: progress.advance(bar)
                )
                rows += sight.run(task, scenes)
    finally:
        session.close()
    if arguments.scenes < SCENES:
        arguments.tasks = ["a try"]
    return finish("sight", rows, arguments)
