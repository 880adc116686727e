"""`embodichain fit`: learn from an archive, without Ray, simulator or MLflow."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodichain.app.settings import ConfigError, config_and_overrides, merged

if TYPE_CHECKING:
    from embodichain.app.fit_folder import FitConfig

EXAMPLES = """\
examples:
  embodichain fit --archive runs/archives/a configs/laptop.yaml learner.minutes=5
  embodichain fit --archive s3://bucket/a learner.steps=10000 replay.max_reuse=20
  embodichain fit --resume runs/fit

Of a run's configuration, `window`, `replay`, `learner` and `seed` count. Every pair is used at most
replay.max_reuse times (replay.mode=static: without bound); the fit ends when the budget is spent or the
archive is used up. It writes runs/<name>/: losses.jsonl, summary.json, checkpoints/."""


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add `fit`."""
    fit = commands.add_parser(
        "fit",
        help="learn from an archive, without Ray, simulator or MLflow",
        description="Learn from an archive in one process: no Ray, no simulator, no MLflow.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fit.add_argument("config", nargs="?", help="a run's YAML file, for its window, replay and learner settings")
    fit.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ")
    fit.add_argument("--archive", metavar="PATH", help="what to learn from: a folder, or any fsspec path")
    fit.add_argument("--resume", metavar="RUN", help="go on with this fit (a folder, or a name under runs/)")
    fit.add_argument("--json", action="store_true", help="print the summary as JSON, nothing else")
    fit.set_defaults(handler=_fit)


def _fit(arguments: argparse.Namespace) -> int:
    from embodichain.app.fit import fit, resume

    if arguments.resume:
        if arguments.archive or arguments.config:
            raise ConfigError(f"--resume {arguments.resume} goes on with that fit's own settings; expected none beside")
        folder = Path(arguments.resume) if Path(arguments.resume).is_dir() else Path("runs") / arguments.resume
        folder = folder.absolute()
        return _execute(partial(resume, folder), folder.parent, as_json=arguments.json)
    if not arguments.archive:
        raise ConfigError("fit: expected --archive PATH, or --resume RUN")
    config = _load(arguments)
    return _execute(partial(fit, config), Path(config.output).absolute(), as_json=arguments.json)


def _load(arguments: argparse.Namespace) -> FitConfig:
    from embodichain.app.config import RunConfig
    from embodichain.app.fit_folder import FitConfig

    path, overrides = config_and_overrides(arguments.config, arguments.overrides)
    shared = {"output", "seed", "window", "replay", "learner"}
    config = merged(FitConfig, path, overrides, without={item.name for item in fields(RunConfig)} - shared)
    return replace(config, archive=arguments.archive)


def _execute(learn: Callable[..., dict[str, Any]], output: Path, *, as_json: bool) -> int:
    """Show how `learn` gets on, which is `fit` or `resume` but for who is told, and what came of it, below `output`."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from embodichain.telemetry.loglines import LogLines

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    stopping: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda *_: stopping.append(1))
    console = Console(stderr=True, quiet=as_json)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    bar = Progress(*columns, TimeElapsedColumn(), console=console)
    task, log = bar.add_task("learning", total=1.0), LogLines(console)
    shown = ExitStack()

    def on_step(step: int, values: dict[str, float], spent: float) -> None:
        if not bar.live.is_started:  # until the first step it reads
            shown.close()
            shown.enter_context(bar)
        skipped = f"  {values['skipped']:g} skipped" if values["skipped"] else ""
        state = f"step {step}  loss {_number(values['loss'], '.4f')}{skipped}"
        bar.update(task, completed=spent, description=state)
        log(f"{state}  {100 * spent:.0f} %")

    try:
        with shown:
            shown.enter_context(console.status("reading"))
            summary = learn(on_step=on_step, stop=lambda: bool(stopping))
    finally:
        signal.signal(signal.SIGINT, previous)
    if as_json:
        print(json.dumps(summary))
    else:
        _show(summary, output / summary["name"])
    return 0


def _show(summary: dict[str, Any], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from embodichain.app.fit_folder import read_losses, smoothed

    console = Console()
    losses = read_losses(folder)
    if losses:
        table, rows = Table(title=f"{folder.name}: {summary['status']}"), smoothed(losses)
        for column in rows[0]:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(str(int(row["step"])), *(_number(value) for key, value in row.items() if key != "step"))
        console.print(table)
    error, reuse = summary["heldout_error"], summary["reuse"]
    if error:
        console.print(
            f"held-out action error {_number(error['first'])} -> {_number(error['last'])} {error['unit']} "
            f"(a model that ignores its input: {_number(error['input_blind'])})"
        )
    console.print(
        f"{summary['learner_steps']} steps in {summary['learner_seconds']:.1f} s from "
        f"{summary['episodes']['learned_from']} episodes; pairs used up to {reuse['max']:g} times (bound "
        f"{'none' if reuse['bound'] is None else reuse['bound']})"
    )
    if summary["skipped"]:
        console.print(f"[yellow]{summary['skipped']} steps skipped[/yellow]: their batch or gradient was not finite")
    if summary["damaged"]:
        console.print(f"[yellow]{summary['damaged']} damaged episodes left out[/yellow]: embodichain archive verify")
    if summary["status"] == "stopped":
        console.print(f"go on with:  [bold]embodichain fit --resume {os.path.relpath(folder)}[/bold]")
    console.print(f"{os.path.relpath(folder)}/  summary.json, losses.jsonl, checkpoints/")


def _number(value: float | None, digits: str = ".4g") -> str:
    return "not finite" if value is None or not math.isfinite(value) else f"{value:{digits}}"
