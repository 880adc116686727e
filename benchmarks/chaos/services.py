"""What stands beside the stream: the evaluator and the logger, killed while they work."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import ray

from benchmarks.chaos.line import PATIENCE_S, line_config
from benchmarks.chaos.outcome import Outcome, Tick
from embodichain.app.components import make_encoder, start_evaluator
from embodichain.app.config import RunConfig
from embodichain.encoders.text import TextEncoder
from embodichain.evaluation.planner import CheckpointResult, EvaluationPlanner
from embodichain.telemetry.logger import LoggerConfig, RunLogger
from embodichain.telemetry.logger_actor import LoggerHandle, start_logger
from learner.build import build_model
from learner.checkpoint import save_checkpoint
from learner.config import DataSpec
from learner.train_step import TrainState
from tasks.session import sim_hash

SEEDS = 3  # scored per injection: one block
PAUSE_S = 0.02
METRICS_BETWEEN = 50  # sent before each kill of the logger


def evaluator_killed(times: int, tick: Tick) -> Outcome:
    """`SIGKILL` to the only evaluator while it scores a checkpoint; a new one must score the same seeds."""
    outcome, config, started = Outcome(), line_config(), list[Any]()

    def start() -> Any:
        actor = start_evaluator(config, False)
        started.append(actor.ready.remote())
        return actor

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = untrained_checkpoint(config, Path(folder) / "step_0")
        planner = EvaluationPlanner(
            start,
            count=1,
            tasks=["pick_place"],
            domain=config.domain,
            sim_hash=sim_hash(),
            step_limit_ratio=1.5,
            lengths={},
        )
        try:
            reference = _until_scored(planner, str(checkpoint), 0)
            for step in range(1, times + 1):
                planner.submit(str(checkpoint), step, SEEDS)
                planner.poll()
                time.sleep(0.2)  # an evaluator takes longer than that to score a block
                began = time.monotonic()
                os.kill(ray.get(started[-1]), signal.SIGKILL)
                result = _wait(planner)
                outcome.recovery_s.append(time.monotonic() - began)
                outcome.lost["seeds"] += SEEDS - sum(score.n for score in result.scores)
                if result.results != reference.results:
                    outcome.broken.append(f"other scores after kill {step} than without one")
                tick()
        finally:
            planner.stop()
    outcome.lost["blocks given up"] = planner.faults["evaluation_block_given_up"]
    if planner.faults["evaluator_died"] != times:
        outcome.broken.append(f"counted {planner.faults['evaluator_died']} deaths, injected {times}")
    return outcome


def untrained_checkpoint(config: RunConfig, path: Path) -> Path:
    """A policy with random weights that fits the run: what it does is scored, not how well."""
    encoder, text = make_encoder(config), TextEncoder()
    data = DataSpec(
        tokens=encoder.max_tokens,
        channels=encoder.channels,
        chunk=config.window.chunk,
        tau=config.window.tau,
        control=config.learner.control,
        text_dim=text.dim,
        encoder_id=encoder.id,
        text_encoder_id=text.id,
    )
    model = build_model(config.learner.network, data, seed=0)
    return save_checkpoint(path, TrainState(model, config.learner.train), {"step": 0})


def _until_scored(planner: EvaluationPlanner, checkpoint: str, step: int) -> CheckpointResult:
    planner.submit(checkpoint, step, SEEDS)
    return _wait(planner)


def _wait(planner: EvaluationPlanner) -> CheckpointResult:
    stop = time.monotonic() + PATIENCE_S
    while time.monotonic() < stop:
        for result in planner.poll():
            return result
        time.sleep(PAUSE_S)
    raise TimeoutError(f"no scores within {PATIENCE_S:g} s; faults: {dict(planner.faults)}")


def logger_killed(times: int, tick: Tick) -> Outcome:
    """`SIGKILL` to the logger while metrics flow; it must go on with the same MLflow run."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        config = LoggerConfig(
            tracking_uri=f"sqlite:///{folder}/mlflow.db", artifact_root=f"{folder}/artifacts", flush_seconds=0.5
        )
        handle, sent = start_logger(config, params={}, tags={}), 0
        send = partial(_send, handle)
        sent = _until_writing(send, sent, old_pid=0, handle=handle)
        for _ in range(times):
            for _ in range(METRICS_BETWEEN):
                sent = send(sent)
            pid = handle.status(timeout=60.0)["pid"]
            began = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            sent = _until_writing(send, sent, old_pid=pid, handle=handle)
            outcome.recovery_s.append(time.monotonic() - began)
            tick()
        last = handle.finish("done")
        if last.get("run_id") != handle.run_id:
            outcome.broken.append(f"ended with MLflow run {last.get('run_id')}, began with {handle.run_id}")
        reopened = RunLogger(LoggerConfig(tracking_uri=config.tracking_uri, run_id=handle.run_id))
        written = {point.step for point in reopened.history()["chaos/sent"]}
    outcome.lost[f"metrics of {sent}"] = sent - len(written)
    if sent - 1 not in written:
        outcome.broken.append("the last metric, sent after the last recovery, is missing")
    return outcome


def _send(handle: LoggerHandle, sent: int) -> int:
    handle.log_metrics({"chaos/sent": float(sent)}, sent)
    time.sleep(PAUSE_S)
    return sent + 1


def _until_writing(send: Any, sent: int, *, old_pid: int, handle: LoggerHandle) -> int:
    """Send on until another process than `old_pid` has written some of it; how many were sent."""
    stop = time.monotonic() + PATIENCE_S
    while time.monotonic() < stop:
        sent = send(sent)
        status = handle.status(timeout=1.0)
        if status.get("pid", old_pid) != old_pid and status.get("written", 0) > 0:
            return sent
    raise TimeoutError(f"the logger wrote nothing within {PATIENCE_S:g} s: {handle.status()}")
