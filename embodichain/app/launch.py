"""From a checked configuration to a finished run: what `embodichain run` does around the driver's loop."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rich.console import Console

from embodichain.app import placement
from embodichain.app.config import ConfigError, RunConfig
from embodichain.app.config_checks import check_components
from embodichain.app.folder import RunFolder, RunState

NO_RENDERER = """\
[bold yellow]No renderer[/bold yellow]: {why}
Running state-only: physics, learning and evaluation are complete, videos are not made.
`embodichain doctor` says what to install."""


def launch(config: RunConfig) -> int:
    """Start a new run; returns the exit code. Raises `ConfigError` before anything is created."""
    check_mlflow(config)
    render = _renderer(config)
    _check_encoder(config)
    if not os.environ.get("RAY_ADDRESS"):
        placement.check(config)  # a cluster is asked once it is joined
    folder = RunFolder.create(config)
    return _execute(config, folder, RunState(), render)


def check_mlflow(config: RunConfig) -> None:
    """The tracking store must answer. Raises `ConfigError`."""
    from embodichain.telemetry.tracking import check_tracking

    try:
        check_tracking(config.mlflow.uri(config.output))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def dry_run(config: RunConfig) -> int:
    """Print what would run where and start nothing; returns the exit code. Raises `ConfigError` without room for it."""
    import ray

    from embodichain.app.cluster import connect

    console, joined = Console(), os.environ.get("RAY_ADDRESS")
    if joined:
        connect(config)
    try:
        console.print(placement.table(config, placement.check(config)))
    finally:
        if joined:
            ray.shutdown()
    where = f"the cluster at {joined}" if joined else "this machine"
    console.print(f"{where} has room for all of it; nothing was started")
    return 0


def resume(run: str) -> int:
    """Go on with an earlier run. Raises `ConfigError` if there is nothing to go on with."""
    from tasks.session import sim_hash

    folder, config, state = RunFolder.open(run)
    if state.status == "done":
        raise ConfigError(f"resume={run}: that run is done; its summary is {folder.summary}")
    if state.sim_hash and state.sim_hash != sim_hash():
        Console(stderr=True).print(
            f"[yellow]note[/yellow]: the simulator's sources changed since this run began ({state.sim_hash} -> "
            f"{sim_hash()}); new episodes carry the new hash"
        )
    check_mlflow(config)
    return _execute(config, folder, state, _renderer(config))


def _renderer(config: RunConfig) -> bool:
    """Whether frames can be rendered; a run that needs them is refused, any other goes on without videos."""
    from embodichain.doctor import renderer_available

    available, why = renderer_available()
    if not available:
        if config.encoder.name != "state":
            raise ConfigError(
                f"encoder.name={config.encoder.name} needs a renderer and there is none ({why}); expected "
                "encoder.name=state, or see `embodichain doctor`"
            )
        Console(stderr=True).print(NO_RENDERER.format(why=why))
    return available


def _check_encoder(config: RunConfig) -> None:
    """Image weights that cannot be loaded, or that the model does not go with, are refused before anything starts.

    On a cluster they lie elsewhere; the driver there looks once more.
    """
    from embodichain.encoders.state import CHANNELS

    channels = CHANNELS
    if config.encoder.name != "state":
        if os.environ.get("RAY_ADDRESS"):
            return
        from embodichain.encoders.weights import load_model

        try:
            channels = int(load_model(config.encoder.weights).config.hidden_size)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    check_components(config.learner.network, channels)


def _execute(config: RunConfig, folder: RunFolder, state: RunState, render: bool) -> int:
    import ray

    from embodichain.app.cluster import connect
    from embodichain.app.progress import Progress
    from embodichain.app.run import Run
    from tasks.session import sim_hash

    console = Console()
    state.sim_hash = sim_hash()
    try:
        connect(config)
    except ConfigError:
        if state.starts == 0:
            shutil.rmtree(folder.path)
        raise
    try:
        with Progress(config, folder, state, console) as progress:
            run = Run(config, folder, state, progress, render=render, sim_hash=state.sim_hash)
            status = run.execute()
            progress.finish(status)
    finally:
        ray.shutdown()
    _say_where_to_look(console, config, folder, state)
    return 0


def _say_where_to_look(console: Console, config: RunConfig, folder: RunFolder, state: RunState) -> None:
    shown = Path(os.path.relpath(folder.path))
    if state.status == "stopped":
        console.print(f"\nstopped cleanly. Go on with:  [bold]embodichain run --resume {shown}[/bold]")
    if state.archive.get("error"):
        console.print(f"\n[yellow]archiving stopped[/yellow]: {state.archive['error']}")
    console.print(f"\n[bold]{shown}[/bold]")
    for path, what in (
        (folder.report, "figures and tables of this run"),
        (folder.summary, "the same as data"),
        (folder.videos, "the last checkpoint on held-out seeds"),
    ):
        if path.exists():
            console.print(f"  {Path(os.path.relpath(path))}  {what}")
    database = Path(os.path.relpath(Path(config.output) / "mlflow.db"))
    console.print(f"\nMLflow:  [bold]make dashboard[/bold]   (mlflow ui --backend-store-uri sqlite:///{database})")
