"""`embodichain fit`: learn from an archive, without Ray, simulator or MLflow."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodichain.app.settings import (
    ConfigError,
    check_writable,
    config_and_overrides,
    device_for,
    full_keys,
    merged,
    new_folder,
    save_config,
)

if TYPE_CHECKING:
    from embodichain.app.fit import FitConfig

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
    from embodichain.app.fit import begin, open_archive

    if arguments.resume:
        if arguments.archive or arguments.config:
            raise ConfigError(f"--resume {arguments.resume} goes on with that fit's own settings; expected none beside")
        folder = Path(arguments.resume) if Path(arguments.resume).is_dir() else Path("runs") / arguments.resume
        return _execute(folder.absolute(), as_json=arguments.json)
    if not arguments.archive:
        raise ConfigError("fit: expected --archive PATH, or --resume RUN")
    config = _load(arguments)
    archive = open_archive(config.archive)
    if not archive.entries():
        raise ConfigError(f"archive={config.archive}: it holds no episodes")
    folder = new_folder(config.output, config.name)
    try:
        for part in ("checkpoints", "replay"):
            (folder / part).mkdir()
        begin(config, archive, folder)
        save_config(config, folder / "fit.yaml")
        return _execute(folder, as_json=arguments.json)
    except ConfigError:  # nothing has been learned yet
        shutil.rmtree(folder)
        raise


def _load(arguments: argparse.Namespace) -> FitConfig:
    from embodichain.app.config import RunConfig
    from embodichain.app.fit import FitConfig
    from embodichain.archive import Location

    path, overrides = config_and_overrides(arguments.config, arguments.overrides)
    shared = {"output", "seed", "window", "replay", "learner"}
    config = merged(FitConfig, path, overrides, without={item.name for item in fields(RunConfig)} - shared)
    try:
        config = replace(config, archive=str(Location.of(arguments.archive)))
    except ValueError as error:
        raise ConfigError(f"--archive: {error}") from error
    check_writable("output", config.output)
    device_for(config.learner.gpu, "learner.gpu=true")
    return config


def _execute(folder: Path, *, as_json: bool) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from embodichain.app.fit import Fit, FitConfig, smoothed
    from embodichain.telemetry.loglines import LogLines

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not (folder / "fit.yaml").is_file():
        raise ConfigError(f"resume={folder}: no fit there; expected a folder with fit.yaml")
    config = merged(FitConfig, folder / "fit.yaml", [])
    stopping: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda *_: stopping.append(1))
    console = Console(stderr=True, quiet=as_json)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    bar = Progress(*columns, TimeElapsedColumn(), console=console)
    task, log = bar.add_task("learning", total=1.0), LogLines(console)

    def report(step: int, values: dict[str, float], spent: float) -> None:
        state = f"step {step}  loss {values['loss']:.4f}"
        bar.update(task, completed=spent, description=state)
        log(f"{state}  {100 * spent:.0f} %")

    try:
        try:
            with console.status("reading"):
                fit = Fit(config, folder, report, lambda: bool(stopping))
        except ValueError as error:
            raise ConfigError(full_keys(str(error))) from error
        try:
            with bar:
                status = fit.run()
        except ValueError as error:  # episodes that do not go together
            raise RuntimeError(str(error)) from error
    finally:
        signal.signal(signal.SIGINT, previous)
    summary = fit.summary(status)
    if as_json:
        print(json.dumps(summary))
        return 0
    _show(summary, smoothed(fit.losses) if fit.losses else [], folder)
    return 0


def _show(summary: dict[str, Any], rows: list[dict[str, float]], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if rows:
        table = Table(title=f"{folder.name}: {summary['status']}")
        for column in rows[0]:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(str(int(row["step"])), *(f"{value:.4g}" for key, value in row.items() if key != "step"))
        console.print(table)
    error, reuse = summary["heldout_error"], summary["reuse"]
    if error:
        console.print(
            f"held-out action error {error['first']:.4g} -> {error['last']:.4g} {error['unit']} "
            f"(a model that ignores its input: {error['input_blind']:.4g})"
        )
    console.print(
        f"{summary['learner_steps']} steps in {summary['learner_seconds']:.1f} s from "
        f"{summary['episodes']['learned_from']} episodes; pairs used up to {reuse['max']:g} times (bound "
        f"{'none' if reuse['bound'] is None else reuse['bound']})"
    )
    if summary["damaged"]:
        console.print(f"[yellow]{summary['damaged']} damaged episodes left out[/yellow]: embodichain archive verify")
    if summary["status"] == "stopped":
        console.print(f"go on with:  [bold]embodichain fit --resume {os.path.relpath(folder)}[/bold]")
    console.print(f"{os.path.relpath(folder)}/  summary.json, losses.jsonl, checkpoints/")
