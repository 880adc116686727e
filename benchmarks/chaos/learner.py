"""One of two learner ranks killed: real Ray Train, real learner, real shards; the episodes are random numbers."""

from __future__ import annotations

import itertools
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from benchmarks.chaos.line import PATIENCE_S, line_config
from benchmarks.chaos.outcome import Outcome, Tick
from benchmarks.chaos.processes import learner_workers
from embodichain.app.board import start_board
from embodichain.app.components import make_encoder
from embodichain.app.config import LearnerConfig, RunConfig
from embodichain.app.folder import RunFolder
from embodichain.app.learn import LearnerJob, LearnerThread
from embodichain.encoders import Encoder
from embodichain.replay.accounting import ReplayStats
from embodichain.replay.fakes import fake_episode
from embodichain.replay.shard import start_shards
from embodichain.replay.writer import ReplayWriter
from learner.checkpoint import list_checkpoints
from learner.config import preset

RANKS = 2
CHECKPOINT_S = 4.0
SLACK_S = 4.0  # what a step, the writing of a checkpoint and a busy machine may add to an interval


def learner_config(folder: str) -> RunConfig:
    """Two small ranks that checkpoint every few seconds and never finish."""
    config = line_config()
    network = replace(preset("tiny", "clwm"), normaliser_batches=4)
    settings = LearnerConfig(
        steps=10**9,
        workers=RANKS,
        cpus=0.5,
        batch_windows=16,
        checkpoint_minutes=CHECKPOINT_S / 60,
        log_seconds=0.2,
        network=network,
    )
    return replace(config, output=folder, learner=settings)


class _Producer(threading.Thread):
    """Appends episodes of random numbers, as many as the replay takes."""

    def __init__(self, shards: list[Any], encoder: Encoder) -> None:
        super().__init__(daemon=True)
        self._writer, self._encoder, self.stop = ReplayWriter(shards), encoder, False

    def run(self) -> None:
        """Until `stop`."""
        for seed in itertools.count():
            shape = (96, self._encoder.max_tokens, self._encoder.channels)
            waiting = [replace(fake_episode(seed, *shape, state_dim=1), encoder_id=self._encoder.id)]
            while waiting and not self.stop:
                waiting = self._writer.append(waiting, timeout_s=0.5).retry
            if self.stop:
                return


class _Learner:
    """The learner of a run, and how far it says it is."""

    def __init__(self, config: RunConfig, folder: RunFolder, shards: list[Any], encoder: Encoder) -> None:
        self.folder, self._board = folder, start_board()
        self.thread = LearnerThread(
            LearnerJob(
                config=config,
                folder=folder.path,
                shards=shards,
                board=self._board,
                tokens=encoder.max_tokens,
                channels=encoder.channels,
                encoder_id=encoder.id,
            )
        )
        self.thread.start()

    def look(self) -> dict[str, Any]:
        """What it last reported; empty before the first report. Raises `RuntimeError` if it gave up."""
        if self.thread.error is not None:
            raise RuntimeError(f"the learner gave up: {self.thread.error}")
        status, _ = ray.get(self._board.read.remote())
        return status

    def checkpoint(self) -> int:
        """Step of the newest whole checkpoint, -1 without one."""
        return max(list_checkpoints(str(self.folder.checkpoints)), default=-1)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition. Raises `TimeoutError` after `PATIENCE_S`."""
        stop = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > stop:
                raise TimeoutError(f"the learner: no {what} within {PATIENCE_S:g} s; last report: {self.look()}")
            self.look()
            time.sleep(0.05)

    def stop(self) -> None:
        """Ask it to end, and wait for that."""
        self._board.request_stop.remote()
        self.thread.join(timeout=PATIENCE_S)
        ray.kill(self._board)


def killed(times: int, tick: Tick) -> Outcome:
    """`SIGKILL` to a rank at a random moment of a checkpoint interval; how far the step counter went back."""
    outcome, chance = Outcome(), random.Random(0)
    with tempfile.TemporaryDirectory() as root:
        config = learner_config(root)
        folder, encoder = RunFolder.create(config), make_encoder(config)
        shards = start_shards(config.sharded_replay, config.window, directory=folder.ledgers, num_cpus=0.0)
        producer = _Producer(shards, encoder)
        producer.start()
        run = _Learner(config, folder, shards, encoder)
        try:
            for _ in range(times):
                outcome.recovery_s.append(_kill_one(run, chance, outcome))
                tick()
        finally:
            run.stop()
            producer.stop = True
            producer.join()
            stats = ReplayStats.merge(ray.get([shard.stats.remote() for shard in shards]))
            for shard in shards:
                ray.kill(shard)
    if stats.reuse_max > config.replay.max_reuse:
        outcome.broken.append(f"a pair was used {stats.reuse_max} times, the bound is {config.replay.max_reuse}")
    return outcome


def _kill_one(run: _Learner, chance: random.Random, outcome: Outcome) -> float:
    """Kill a rank some time after a checkpoint; seconds until the learner, started again, has made a step."""
    first = run.checkpoint()
    run.until(lambda: run.checkpoint() > max(0, first), "checkpoint")
    time.sleep(chance.uniform(0.0, CHECKPOINT_S))
    ranks, saved = learner_workers(os.getpid()), run.checkpoint()
    victim, age_s = chance.choice(ranks), time.time() - _saved_at(run, saved)
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    run.until(lambda: bool(now := learner_workers(os.getpid())) and not set(now) & set(ranks), "new ranks")
    before, kept = run.look(), run.checkpoint()  # nobody writes any more: what the dead ranks said last
    run.until(lambda: run.look() != before and run.look()["phase"] == "learning", "step of the new ranks")
    recovery = time.monotonic() - began
    outcome.lost["steps"] += max(0, int(before["step"]) - kept)
    if run.look()["step"] < kept:
        outcome.broken.append(f"went on from step {run.look()['step']}, checkpoint {kept} was whole")
    if kept == saved and age_s > CHECKPOINT_S + SLACK_S:
        outcome.broken.append(f"killed {age_s:.1f} s after a checkpoint, the interval is {CHECKPOINT_S:g} s")
    return recovery


def _saved_at(run: _Learner, step: int) -> float:
    return Path(run.folder.checkpoint(step)).stat().st_mtime
