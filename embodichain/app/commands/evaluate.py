"""`embodichain evaluate`: closed-loop success of a checkpoint, with confidence intervals and videos."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
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
from embodichain.evaluation.planner import (
    BLOCK_SEEDS,
    BLOCK_TIMEOUT_S,
    MAX_ATTEMPTS,
    CheckpointResult,
    EvaluationPlanner,
)

SERVER_TIMEOUT_S = 3600.0  # a server that hangs is noticed much sooner, by its client
FAULTS = {"evaluator_hung": "hung", "evaluator_died": "died", "evaluator_start": "did not start"}


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
    evaluate.add_argument(
        "--block-timeout",
        type=float,
        metavar="S",
        help=f"an evaluator that takes longer for {BLOCK_SEEDS} seeds, or a video, hangs: another one tries, "
        f"{MAX_ATTEMPTS} in all (default {BLOCK_TIMEOUT_S:g}; with --server {SERVER_TIMEOUT_S:g})",
    )
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
    if bool(arguments.checkpoint) == bool(arguments.server):
        raise ConfigError("evaluate: expected a checkpoint or --server URL, one of them")
    for key, low in (("seeds", 1), ("evaluators", 1), ("videos", 0)):
        if getattr(arguments, key) < low:
            raise ConfigError(f"--{key}={getattr(arguments, key)}: expected at least {low}")
    block_timeout_s = _block_timeout_s(arguments)
    subject = _server(arguments) if arguments.server else _checkpoint(arguments)
    with redirect_stdout(sys.stderr):  # where Ray tells of dead processes; stdout is the table's alone
        scored = _score(subject, arguments, block_timeout_s)
    _print(scored.result, scored.videos, as_json=arguments.json)
    gone = _gone(arguments) if scored.missing and arguments.server else []
    if troubles := [*scored.missing, *gone, *_replaced(scored.faults, block_timeout_s)]:
        print(f"embodichain: {'; '.join(troubles)}", file=sys.stderr)
    return 1 if scored.missing else 0


def _block_timeout_s(arguments: argparse.Namespace) -> float:
    default = SERVER_TIMEOUT_S if arguments.server else BLOCK_TIMEOUT_S
    seconds = float(default if arguments.block_timeout is None else arguments.block_timeout)
    if not seconds > 0:  # NaN neither
        raise ConfigError(f"--block-timeout={seconds:g}: expected more than 0 seconds")
    return seconds


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """What came of it: `videos` by task, what is `missing` of all that was asked for, the planner's `faults`."""

    result: CheckpointResult
    videos: dict[str, str]
    missing: list[str]
    faults: Counter[str]


def _score(subject: _Subject, arguments: argparse.Namespace, block_timeout_s: float) -> _Scored:
    import ray

    from embodichain.app.cluster import connect
    from embodichain.doctor import renderer_available
    from tasks.session import sim_hash

    config, tasks = subject.config, _tasks(arguments, list(subject.config.active_tasks))
    render, why = renderer_available() if arguments.videos else (False, "")
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
        block_timeout_s=block_timeout_s,
    )
    planner.submit(subject.place, subject.step, arguments.seeds)
    result = _wait(planner, quiet=arguments.json)
    missing = _missing(result, tasks, arguments.seeds)
    if arguments.videos and not render:
        missing.append(f"no videos: nothing can be rendered here ({why})")
    videos = {task: str(subject.videos / f"{task}_step_{subject.step}.mp4") for task in result.results if render}
    if videos:
        planner.film(subject.place, subject.step, videos, arguments.videos, config.evaluation.video_every)
        unfilmed = _wait(planner, quiet=arguments.json).given_up
        missing += [f"no video of {task} ({_why(unfilmed[task])})" for task in unfilmed]
        videos = {task: path for task, path in videos.items() if task not in unfilmed}
    planner.stop()
    ray.shutdown()
    return _Scored(result=result, videos=videos, missing=missing, faults=planner.faults)


def _missing(result: CheckpointResult, tasks: list[str], seeds: int) -> list[str]:
    """For each task with fewer than `seeds` scored: how many are missing, and why."""
    scored = {row.task: row.n for row in result.scores}
    return [
        f"{seeds - n} of {seeds} seeds of {task} not scored ({_why(result.given_up.get(task, Counter()))})"
        for task, n in ((task, scored.get(task, 0)) for task in tasks)
        if n < seeds
    ]


def _why(given_up: Counter[str]) -> str:
    """Faults that ended the last attempts, in words; without any, the expert gave too few seeds that count."""
    return ", ".join(f"its evaluators {FAULTS[fault]}" for fault in given_up) or "the expert fails on too many"


def _gone(arguments: argparse.Namespace) -> list[str]:
    """That the server no longer answers, which is what its evaluators died of then; empty if it does."""
    from embodichain.app.serving import ask_server

    try:
        ask_server(arguments.server, arguments.token)
    except ConfigError as error:
        return [f"the server no longer answers ({error})"]
    return []


def _replaced(faults: Counter[str], block_timeout_s: float) -> list[str]:
    """Which evaluators had to be replaced, and what to do about it; empty if none had to."""
    counts = [f"{faults[fault]} {what}" for fault, what in FAULTS.items() if faults[fault]]
    advice = f" (not done in {block_timeout_s:g} s: --block-timeout)" if faults["evaluator_hung"] else ""
    return [f"evaluators replaced: {', '.join(counts)}{advice}"] if counts else []


def _wait(planner: EvaluationPlanner, *, quiet: bool) -> CheckpointResult:
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
