"""`embodichain evaluate`: closed-loop success of a checkpoint, with confidence intervals and videos."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from embodichain.app.commands.checkpoints import TOKEN, add_mode_arguments, find_checkpoint, with_mode
from embodichain.app.commands.domains import domain_name
from embodichain.app.commands.known import known_tasks
from embodichain.app.config import ConfigError, EvaluationConfig, RunConfig
from embodichain.contracts import SCORING
from embodichain.evaluation.planner import CheckpointResult


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add `evaluate`."""
    evaluate = commands.add_parser(
        "evaluate",
        help="closed-loop success of a checkpoint, with confidence intervals and videos",
        description="Score a checkpoint on what training never draws: seeds, scenes, combinations, phrasings, tasks.",
    )
    evaluate.add_argument("checkpoint", nargs="?", help="runs/<name>/checkpoints/step_N, or runs/<name> for the latest")
    evaluate.add_argument("--server", metavar="URL", help="instead: the policy server there, as ws://host:port")
    evaluate.add_argument("--token", default=os.environ.get(TOKEN, ""), help=f"for the server (default: ${TOKEN})")
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
    add_mode_arguments(evaluate)
    evaluate.add_argument(
        "--latency-steps",
        type=_latency,
        default=argparse.SUPPRESS,
        metavar="N",
        help="control steps that a chunk takes to compute, on a logical clock; `measured`: as long as it takes",
    )
    evaluate.add_argument("--json", action="store_true", help="print the table as JSON, nothing else")
    evaluate.set_defaults(handler=_evaluate)


def _latency(text: str) -> float | None:
    """A number of control steps, or None for `measured`."""
    return None if text == "measured" else float(text)


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What is scored: `place` is a checkpoint or a server's address."""

    config: RunConfig
    place: str
    step: int
    videos: Path
    start_evaluator: Callable[[bool], Any]


def _checkpoint(arguments: argparse.Namespace) -> _Subject:
    from embodichain.app.components import start_evaluator
    from embodichain.app.filming import need_renderer
    from embodichain.app.serving import check_checkpoint
    from tasks.registry import slots

    folder, step, config = find_checkpoint(arguments.checkpoint)
    config = _with_latency(with_mode(config, arguments), arguments)
    tasks = _tasks(arguments, list(config.active_tasks))
    need, have = slots(tasks), slots(config.active_tasks)
    if config.encoder.name == "state" and any(need[key] > have[key] for key in have):
        raise ConfigError(
            f"--tasks={' '.join(tasks)}: the checkpoint sees at most {have['max_objects']} objects and "
            f"{have['max_goals']} goals, these tasks have {need['max_objects']} and {need['max_goals']}"
        )
    if config.encoder.name != "state":
        need_renderer("evaluate, of a policy that reads images,")
    check_checkpoint(config, folder.checkpoint(step))
    return _Subject(
        config=config,
        place=folder.checkpoint(step),
        step=step,
        videos=folder.videos,
        start_evaluator=partial(start_evaluator, config),
    )


def _server(arguments: argparse.Namespace) -> _Subject:
    from embodichain.app.components import evaluation_timing, start_evaluator
    from embodichain.app.filming import need_renderer
    from embodichain.app.serving import ask_server, build_remote_evaluator, client_encoder, eyes

    if not arguments.tasks:
        raise ConfigError("--server without --tasks: expected the tasks to score the policy on")
    for key in ("s_video", "s_action", "context_frames"):
        if getattr(arguments, key) is not None:
            raise ConfigError(f"--{key.replace('_', '-')} with --server: it is a setting of `embodichain serve`")
    tasks = _tasks(arguments, [])
    info = ask_server(arguments.server, arguments.token)
    mode = arguments.mode or info.mode
    if mode == "sai" and info.mode != "sai":
        raise ConfigError(f"--mode=sai: the server runs in mode {info.mode}; expected one that speculates")
    if eyes(info):
        need_renderer("evaluate, of a policy that reads images,")
    client_encoder(info, tasks)
    config = RunConfig(tasks=dict.fromkeys(tasks, 1.0), evaluation=EvaluationConfig(replan=info.replan, mode=mode))
    config = _with_latency(config, arguments)
    build = partial(build_remote_evaluator, info=info, token=arguments.token, timing=evaluation_timing(config))
    return _Subject(
        config=config,
        place=arguments.server,
        step=0,
        videos=Path("runs") / "served",
        start_evaluator=partial(start_evaluator, config, build=build),
    )


def _with_latency(config: RunConfig, arguments: argparse.Namespace) -> RunConfig:
    if not hasattr(arguments, "latency_steps"):
        return config
    return replace(config, evaluation=replace(config.evaluation, latency_steps=arguments.latency_steps))


def _tasks(arguments: argparse.Namespace, default: list[str]) -> list[str]:
    return sorted(known_tasks(arguments.tasks or default))


def _evaluate(arguments: argparse.Namespace) -> int:
    import ray

    from embodichain.app.cluster import connect
    from embodichain.doctor import renderer_available
    from embodichain.evaluation.planner import EvaluationPlanner
    from tasks.session import sim_hash

    if bool(arguments.checkpoint) == bool(arguments.server):
        raise ConfigError("evaluate: expected a checkpoint or --server URL, one of them")
    for key, low in (("seeds", 1), ("evaluators", 1), ("videos", 0)):
        if getattr(arguments, key) < low:
            raise ConfigError(f"--{key}={getattr(arguments, key)}: expected at least {low}")
    subject = _server(arguments) if arguments.server else _checkpoint(arguments)
    config, tasks = subject.config, _tasks(arguments, list(subject.config.active_tasks))
    render = bool(arguments.videos) and renderer_available()[0]
    connect(config)
    planner = EvaluationPlanner(
        partial(subject.start_evaluator, render),
        count=arguments.evaluators,
        tasks=tasks,
        domain=arguments.domain or config.domain,
        sim_hash=sim_hash(),
        step_limit_ratio=config.evaluation.step_limit_ratio,
        lengths={},
        seed_range=arguments.seed_range,
    )
    planner.submit(subject.place, subject.step, arguments.seeds)
    result = _wait(planner, quiet=arguments.json)
    videos = {task: str(subject.videos / f"{task}_step_{subject.step}.mp4") for task in tasks}
    if render:
        planner.film(subject.place, subject.step, videos, arguments.videos, config.evaluation.video_every)
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
    waited = any(row.latency_steps for row in result.scores)
    columns = ("task", "split", "domain", "n", "success", "Wilson 95 %", "progress", "left out")
    for column in (*columns, *(("latency", "held") if waited else ())):
        table.add_column(column)
    for row in result.scores:
        interval = f"{row.low:.1%} to {row.high:.1%}"
        waiting = (f"{row.latency_steps:.2g} steps", f"{row.held_share:.0%}") if waited else ()
        figures = (str(row.n), f"{row.rate:.1%}", interval, f"{row.progress:.2f}", str(row.left_out), *waiting)
        table.add_row(row.task, row.split, row.domain, *figures)
    console = Console()
    console.print(table)
    for task, path in videos.items():
        console.print(f"{task}: {path}")
