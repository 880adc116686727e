"""`embodichain imagine`: what a checkpoint imagines and wants to do, beside what is real, as pictures."""

from __future__ import annotations

import argparse
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from embodichain.app.commands.domains import DOMAIN_HELP, domain_name
from embodichain.app.commands.known import known_tasks
from embodichain.app.settings import ConfigError, check_writable
from embodichain.contracts import SCORING

if TYPE_CHECKING:
    from embodichain.app.config import RunConfig
    from embodichain.app.folder import RunFolder

EXAMPLES = """\
examples:
  embodichain imagine runs/quickstart                        the expert acts, the model looks on
  embodichain imagine runs/quickstart --acts model --seed 3  the model acts
  embodichain imagine runs/vision/checkpoints/step_900 --tasks pick_place --mlflow

For every task: TASK.mp4, the real rollout beside the future that the model imagines; TASK-chunks.png, the chunks it
wants against what was done; for image tokens TASK-features.png. imagine.json holds the errors, beside those of a model
that takes the present frame for the next one; a rollout of a single frame (--steps) has none."""


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add `imagine`."""
    imagine = commands.add_parser(
        "imagine",
        help="what a checkpoint imagines, beside what is real, as video and plots",
        description="Run one held-out rollout per task and draw what the checkpoint imagines at every frame of it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    imagine.add_argument("checkpoint", help="runs/<name>/checkpoints/step_N, or runs/<name> for the latest")
    imagine.add_argument("--tasks", nargs="+", metavar="NAME", help="default: the run's own tasks")
    imagine.add_argument("--acts", choices=("expert", "model"), default="expert", help="who acts (default expert)")
    imagine.add_argument("--seed", type=int, default=0, metavar="I", help="index of the held-out seed (default 0)")
    imagine.add_argument("--seed-range", choices=SCORING, default="tune", help="default tune")
    imagine.add_argument("--domain", type=domain_name, metavar="D", help=f"default: the run's own; {DOMAIN_HELP}")
    imagine.add_argument("--steps", type=int, default=240, metavar="N", help="control steps of a model at most (240)")
    imagine.add_argument("--output", metavar="DIR", help="default: <run>/imagine/step_N")
    imagine.add_argument("--mlflow", action="store_true", help="attach the files to the run's record in MLflow, too")
    imagine.add_argument("--json", action="store_true", help="print the figures as JSON, nothing else")
    imagine.set_defaults(handler=_imagine)


def _imagine(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import track

    from embodichain.app.commands.checkpoints import find_checkpoint
    from embodichain.app.dreaming import DreamStudio
    from embodichain.contracts import seed_range
    from embodichain.evaluation.realtime import NotFinite
    from tasks.base import PlanFailure

    folder, step, config = find_checkpoint(arguments.checkpoint)
    tasks = known_tasks(arguments.tasks or config.active_tasks)
    if arguments.steps < 1:
        raise ConfigError(f"--steps={arguments.steps}: expected at least 1")
    try:
        seed = seed_range(arguments.seed_range).at(arguments.seed)
    except IndexError as error:
        raise ConfigError(f"--seed={arguments.seed}: {error}") from error
    run_id = _mlflow_run(config, folder) if arguments.mlflow else ""
    output = Path(arguments.output or folder.path / "imagine" / f"step_{step}").absolute()
    check_writable("--output", str(output))
    studio = DreamStudio(config, folder.checkpoint(step), tasks)
    output.mkdir(parents=True, exist_ok=True)
    rows, failed, broken = [], [], False
    try:
        console = Console(stderr=True)
        for task in track(tasks, description="imagining", console=console, disable=arguments.json):
            try:
                row = studio.shoot(
                    task,
                    seed,
                    domain=arguments.domain or config.domain,
                    by_expert=arguments.acts == "expert",
                    limit=arguments.steps,
                    folder=output,
                )
            except PlanFailure as failure:
                failed.append(f"{task} seed {seed}: the expert has no plan ({failure}); expected another --seed")
            except NotFinite as error:
                failed.append(f"{task} seed {seed}: {error}")
                broken = True
            else:
                rows.append(row)
    finally:
        studio.close()
    if not rows:
        with suppress(OSError):  # of an earlier start something may be there
            output.rmdir()
        raise (RuntimeError if broken else ConfigError)("; ".join(failed))
    (output / "imagine.json").write_text(json.dumps({"checkpoint": folder.checkpoint(step), "rows": rows}, indent=1))
    if run_id:
        _attach(config, output, run_id, step)
    _print(rows, output, as_json=arguments.json)
    if failed:
        raise RuntimeError("; ".join(failed))
    return 0


def _mlflow_run(config: RunConfig, folder: RunFolder) -> str:
    """The run's id in MLflow. Raises `ConfigError` if it has none, or its tracking store does not answer."""
    from embodichain.app.launch import check_mlflow

    if not folder.state.is_file() or not (run_id := folder.read_state().mlflow_run_id):
        raise ConfigError(f"--mlflow: {folder.path} has no record in MLflow; expected a folder that `run` made")
    check_mlflow(config)
    return run_id


def _attach(config: RunConfig, output: Path, run_id: str, step: int) -> None:
    """Add the folder to the run's artifacts. Raises `RuntimeError` if MLflow refuses."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from embodichain.telemetry.tracking import without_password

    uri = config.mlflow.uri(config.output)
    try:
        MlflowClient(uri).log_artifacts(run_id, str(output), f"imagine/step_{step}")
    except (MlflowException, OSError) as error:
        line = str(error).splitlines()[0]
        raise RuntimeError(f"--mlflow: {without_password(uri)}: {line}; the files are in {output}") from error


def _print(rows: list[dict[str, object]], output: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows))
        return
    from benchmarks.result import print_rows

    print_rows("what was imagined", rows)
    print(f"{os.path.relpath(output)}/  videos, plots, imagine.json")
