"""`embodichain evaluate`: closed-loop success of a checkpoint, with confidence intervals and videos."""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from embodichain.app.commands.domains import domain_name
from embodichain.app.config import ConfigError, RunConfig, load_config
from embodichain.app.folder import RunFolder
from embodichain.contracts import SCORING
from embodichain.evaluation.planner import CheckpointResult
from learner.checkpoint import list_checkpoints


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add `evaluate`."""
    evaluate = commands.add_parser(
        "evaluate",
        help="closed-loop success of a checkpoint, with confidence intervals and videos",
        description="Score a checkpoint on what training never draws: seeds, scenes, combinations, phrasings, tasks.",
    )
    evaluate.add_argument("checkpoint", help="runs/<name>/checkpoints/step_N, or runs/<name> for the latest")
    evaluate.add_argument("--seeds", type=int, default=50, metavar="N", help="held-out seeds per task (default 50)")
    evaluate.add_argument(
        "--seed-range", choices=SCORING, default=SCORING[0], help="tune: while choosing settings (default eval)"
    )
    evaluate.add_argument("--tasks", nargs="+", metavar="NAME", help="default: the run's own tasks")
    evaluate.add_argument(
        "--domain",
        type=domain_name,
        metavar="D",
        help="default: the run's own; D@scenes, D@combinations or D@language for what training never draws",
    )
    evaluate.add_argument("--evaluators", type=int, default=2, metavar="N", help="processes (default 2)")
    evaluate.add_argument("--videos", type=int, default=0, metavar="K", help="film the first K seeds of each task")
    evaluate.add_argument("--json", action="store_true", help="print the table as JSON, nothing else")
    evaluate.set_defaults(handler=_evaluate)


def _find(checkpoint: str) -> tuple[RunFolder, int, RunConfig]:
    """The run's folder, the checkpoint's step and the run's configuration. Raises `ConfigError` if there is none."""
    path = Path(checkpoint).absolute()
    run, step = (path.parent.parent, path.name) if path.name.startswith("step_") else (path, "")
    if (run / "config.yaml").is_file():
        config = load_config(run / "config.yaml")
        folder = RunFolder(run, config.storage)
        there = list_checkpoints(str(folder.checkpoints))
        wanted = [n for n in there if not step or step == f"step_{n}"]
        if wanted:
            return folder, wanted[-1], config
    raise ConfigError(f"checkpoint={checkpoint}: expected runs/<name> or runs/<name>/checkpoints/step_N of a run")


def _evaluate(arguments: argparse.Namespace) -> int:
    import ray

    from embodichain.app.cluster import connect
    from embodichain.app.components import start_evaluator
    from embodichain.doctor import renderer_available
    from embodichain.evaluation.planner import EvaluationPlanner
    from tasks.registry import slots, task_names
    from tasks.session import sim_hash

    folder, step, config = _find(arguments.checkpoint)
    path = folder.checkpoint(step)
    for key in ("seeds", "evaluators"):
        if getattr(arguments, key) < 1:
            raise ConfigError(f"--{key}={getattr(arguments, key)}: expected at least 1")
    tasks = sorted(arguments.tasks or config.active_tasks)
    for task in tasks:
        if task not in task_names():
            raise ConfigError(f"task={task}: unknown task; expected one of {', '.join(task_names())}")
    need, have = slots(tasks), slots(config.active_tasks)
    if config.encoder.name == "state" and any(need[key] > have[key] for key in have):
        raise ConfigError(
            f"--tasks={' '.join(tasks)}: the checkpoint sees at most {have['max_objects']} objects and "
            f"{have['max_goals']} goals, these tasks have {need['max_objects']} and {need['max_goals']}"
        )
    render = bool(arguments.videos) and renderer_available()[0]
    connect(config)
    planner = EvaluationPlanner(
        partial(start_evaluator, config, render),
        count=arguments.evaluators,
        tasks=tasks,
        domain=arguments.domain or config.domain,
        sim_hash=sim_hash(),
        step_limit_ratio=config.evaluation.step_limit_ratio,
        lengths={},
        seed_range=arguments.seed_range,
    )
    planner.submit(path, step, arguments.seeds)
    result = _wait(planner, quiet=arguments.json)
    videos = {task: str(folder.videos / f"{task}_step_{step}.mp4") for task in tasks}
    if render:
        planner.film(path, step, videos, arguments.videos, config.evaluation.video_every)
        _wait(planner, quiet=arguments.json)
    planner.stop()
    ray.shutdown()
    _print(result, videos if render else {}, as_json=arguments.json)
    return 0


def _wait(planner: object, *, quiet: bool) -> CheckpointResult:
    from embodichain.evaluation.planner import EvaluationPlanner

    assert isinstance(planner, EvaluationPlanner)
    total, finished = planner.blocks_left, []
    with Progress(console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task("evaluating", total=total)
        while planner.busy:
            finished.extend(planner.poll())
            progress.update(bar, completed=total - planner.blocks_left)
            time.sleep(0.1)
    return finished[0]


def _print(result: CheckpointResult, videos: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([score.to_dict() for score in result.scores]))
        return
    table = Table(title=f"{result.checkpoint}: closed loop")
    for column in ("task", "split", "domain", "n", "success", "Wilson 95 %", "progress", "left out"):
        table.add_column(column)
    for row in result.scores:
        interval = f"{row.low:.1%} to {row.high:.1%}"
        figures = (str(row.n), f"{row.rate:.1%}", interval, f"{row.progress:.2f}", str(row.left_out))
        table.add_row(row.task, row.split, row.domain, *figures)
    console = Console()
    console.print(table)
    for task, path in videos.items():
        console.print(f"{task}: {path}")
