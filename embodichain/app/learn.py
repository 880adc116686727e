"""The learner's process: a Ray Train loop that reads the shards, trains, and publishes checkpoints.

Rank 0 alone writes: checkpoints into the run's folder (whole or not at all), status to the board. Every
rank agrees on stopping and on checkpoint steps, and waits for data with the others: before every step they meet.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray import train
from ray.actor import ActorHandle
from ray.train import FailureConfig, ScalingConfig
from ray.train import RunConfig as TrainRunConfig
from ray.train.torch import TorchConfig, TorchTrainer

from embodichain.app.config import RunConfig
from embodichain.app.folder import RunFolder
from embodichain.encoders.text import TextEncoder
from embodichain.replay.assembly import BatchInfo
from embodichain.replay.client import ReplayClient
from embodichain.replay.prefetch import Prefetcher
from learner.batch import TensorBatch, prepare_batch
from learner.build import build_model
from learner.checkpoint import load_state, save_checkpoint
from learner.config import DataSpec
from learner.feed import DeviceFeed
from learner.parallel import Ranks
from learner.train_step import TrainState

MAX_LEARNER_RESTARTS = 3
THROUGHPUT_STEPS = 200  # experience throughput is counted over this many learner iterations
BATCH_TIMEOUT_S = 1.0
METRIC_STEPS = 10  # every so many steps the losses are kept for the log


@dataclass(frozen=True, kw_only=True)
class LearnerJob:
    """All that a learner process needs.

    Attributes:
        config: the run.
        folder: the run's folder.
        shards: the replay shards.
        board: where status goes and the wish to stop comes from.
        tokens, channels: L and C of the run's encoder; `encoder_id` its name and weights hash.
    """

    config: RunConfig
    folder: Path
    shards: list[ActorHandle]
    board: Any
    tokens: int
    channels: int
    encoder_id: str


@dataclass(kw_only=True)
class Counters:
    """What the learner counts; saved in every checkpoint.

    Attributes:
        step: optimiser steps. `elapsed_s`: wall time in the loop. `stall_s`: of it, until all ranks had data.
        uses: pair uses. `fresh`: first uses among them.
        core_s: processor time of all ranks' processes, their start included.
    """

    step: int = 0
    elapsed_s: float = 0.0
    stall_s: float = 0.0
    uses: int = 0
    fresh: int = 0
    core_s: float = 0.0
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=THROUGHPUT_STEPS))

    def to_dict(self) -> dict[str, float]:
        """The JSON-able part."""
        return {key: getattr(self, key) for key in ("step", "elapsed_s", "stall_s", "uses", "fresh", "core_s")}

    @property
    def throughput(self) -> float:
        """Experience throughput: first uses in the last n iterations, divided by n."""
        return sum(self.recent) / len(self.recent) if self.recent else 0.0


@dataclass(frozen=True, kw_only=True)
class _Agreement:
    """What all ranks know of one step: whether all have a batch, whether to stop or save, the schedule, the sums."""

    ready: bool
    stop: bool
    save: bool
    progress: float
    uses: int
    fresh: int
    core_s: float


class LearnerLoop:
    """One rank's loop."""

    def __init__(self, job: LearnerJob, rank: int, world: int) -> None:
        self.job, self.rank, self.world = job, rank, world
        self.settings = job.config.learner
        self.device = "cuda" if self.settings.gpu else "cpu"
        self.text = TextEncoder()
        self.feed = DeviceFeed(self.device)
        self.client = ReplayClient(
            job.shards,
            job.config.window,
            self.settings.batch_windows // world,
            transport=job.config.replay.transport,
            allocate=self.feed.allocate,
        )
        self.counters = Counters()
        self._core_counted_s = 0.0
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.stop: bool = False
        self.folder = RunFolder(job.folder, job.config.storage)
        self.published: int | None = None  # step of the last checkpoint
        self.state = self._restore_or_create()
        self._parameters = sum(each.numel() for each in self.state.model.parameters() if each.requires_grad)

    def _restore_or_create(self) -> TrainState:
        window = self.job.config.window
        data = DataSpec(
            tokens=self.job.tokens,
            channels=self.job.channels,
            chunk=window.chunk,
            tau=window.tau,
            control=self.settings.control,
            text_dim=self.text.dim,
            encoder_id=self.job.encoder_id,
            text_encoder_id=self.text.id,
        )
        kind = self.settings.parallel if self.world > 1 else "none"
        ranks = Ranks(rank=self.rank, world=self.world, kind=kind)
        latest = self.folder.latest_checkpoint()
        if latest is None:
            network = self.settings.network.for_windows(window.seen)
            model = build_model(network, data, seed=self.job.config.seed).to(self.device)
            return TrainState(model, self.settings.train, ranks=ranks)
        state, info = load_state(latest, data=data, device=self.device, ranks=ranks)
        for key, value in info.extra.items():
            setattr(self.counters, key, value)
        self.published = self.counters.step
        return state

    def progress(self) -> float:
        """Share of the budget that is spent, in [0, 1]: of steps or of minutes, whichever is further."""
        spent = self.counters.step / self.settings.steps
        if self.settings.minutes is not None:
            spent = max(spent, self.counters.elapsed_s / (60 * self.settings.minutes))
        return min(1.0, spent)

    def run(self) -> None:
        """Train until the budget is spent or the board says stop; always leaves a checkpoint behind."""
        if self.counters.step == 0:
            self.publish()
        batches = Prefetcher(self._make_batch)
        held: tuple[TensorBatch, BatchInfo] | None = None
        started = looked = last_log = last_save = time.monotonic()
        before, waiting = self.counters.elapsed_s, False
        while True:
            if held is None and not self.stop:
                held = batches.next(BATCH_TIMEOUT_S)
            now = time.monotonic()
            self.counters.elapsed_s = before + now - started
            due = self.settings.checkpoint_due(self.counters.step + 1, now - last_save)
            together = self._agree(stop=self.stop, save=due, info=held[1] if held else None)
            self.counters.stall_s += time.monotonic() - looked
            self.counters.core_s += together.core_s
            if together.stop or together.progress >= 1.0:
                break
            if together.ready and held is not None:
                if waiting:  # said before the step, which may take minutes: who looks on must not take it for waiting
                    self.report("learning")
                self._train_step(*held, together)
                held = None
                if together.save:
                    self.publish()
                    last_save = time.monotonic()
            if not together.ready or now - last_log > self.settings.log_seconds:
                self.report("learning" if together.ready else "waiting for data")
                last_log = now
            waiting = not together.ready
            looked = time.monotonic()
        batches.close()
        self.client.close()
        self.publish()
        self.report("finished")

    def _make_batch(self, timeout_s: float) -> tuple[TensorBatch, BatchInfo] | None:
        """In the thread that prefetches: the next batch as tensors on the device."""
        delivered = self.client.next_batch(timeout_s)
        if delivered is None:
            return None
        batch, info = delivered
        return self.feed.put(prepare_batch(batch, self.text.encode(batch.instruction))), info

    def _train_step(self, batch: TensorBatch, info: BatchInfo, together: _Agreement) -> None:
        values = self.state.step(self.feed.take(batch), together.progress)
        self.counters.step += 1
        self.counters.uses += together.uses
        self.counters.fresh += together.fresh
        self.counters.recent.append(together.fresh)
        if self.rank == 0 and self.counters.step % METRIC_STEPS == 0:
            values = {**values, "sample_age_s": info.age_mean_s, "experience_throughput": self.counters.throughput}
            self.metrics.append((self.counters.step, {key: float(value) for key, value in values.items()}))

    def _agree(self, *, stop: bool, save: bool, info: BatchInfo | None) -> _Agreement:
        """Rank 0 decides when to save and how far the schedule is; any rank stops all; none goes on without a batch.

        A rank that waits alone would never hear of the board's wish to stop, which rank 0 is told.
        """
        core_s = time.process_time()
        mine = [float(info is None), float(stop), 0.0, 0.0, float(info.uses if info else 0)]
        mine += [float(info.fresh_pairs if info else 0), core_s - self._core_counted_s]
        self._core_counted_s = core_s
        if self.rank == 0:
            mine[2:4] = [float(save), self.progress()]
        if self.world > 1:
            total = torch.tensor(mine, dtype=torch.float64, device=self.device)
            dist.all_reduce(total)
            mine = total.tolist()
        return _Agreement(
            ready=mine[0] == 0,
            stop=mine[1] > 0,
            save=mine[2] > 0,
            progress=mine[3],
            uses=round(mine[4]),
            fresh=round(mine[5]),
            core_s=mine[6],
        )

    def publish(self) -> None:
        """Write `checkpoints/step_N`; the checkpoint appears whole or not at all. All ranks together: see there."""
        if self.counters.step != self.published:
            self.published = self.counters.step
            save_checkpoint(self.folder.checkpoint(self.counters.step), self.state, self.counters.to_dict())

    def report(self, phase: str) -> None:
        """Tell the board where this learner stands, and hear whether to stop."""
        if self.rank != 0:
            return
        status = {
            **self.counters.to_dict(),
            "phase": phase,
            "parameters": self._parameters,
            "progress": self.progress(),
            "experience_throughput": self.counters.throughput,
            "skipped_steps": self.state.skipped,
        }
        try:
            self.stop = ray.get(self.job.board.post.remote(status, self.metrics), timeout=30)
            self.metrics = []
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            pass  # the board is restarting: keep the metrics and say it again at the next report


def train_loop(parts: dict[str, Any]) -> None:
    """What every Ray Train worker runs; `parts["job"]` is a `LearnerJob`."""
    job: LearnerJob = parts["job"]
    torch.set_num_threads(job.config.learner.threads)
    context = train.get_context()
    loop = LearnerLoop(job, context.get_world_rank(), context.get_world_size())
    loop.run()


class LearnerThread(threading.Thread):
    """Runs Ray Train's `fit` beside the driver's loop. `error` holds what it died of, if it did."""

    def __init__(self, job: LearnerJob) -> None:
        super().__init__(name="learner", daemon=True)
        self._job = job
        self.error: BaseException | None = None

    def run(self) -> None:
        """Train, restarting the ranks from the latest checkpoint whenever one dies.

        Gives up once `MAX_LEARNER_RESTARTS` restarts together have not brought a new checkpoint: a long run may lose
        ranks as often as it likes, one that fails at the same place does so for the last time.
        """
        folder = RunFolder(self._job.folder, self._job.config.storage)
        while True:
            before = folder.latest_checkpoint()
            try:
                self._fit()
                return
            except Exception as error:  # the thread's edge: the driver re-raises it
                if folder.latest_checkpoint() == before:
                    self.error = error
                    return

    def _fit(self) -> None:
        settings = self._job.config.learner
        scaling: Any = ScalingConfig  # its stubs are those of an older Train, without labels
        trainer = TorchTrainer(
            train_loop,
            train_loop_config={"job": self._job},
            torch_config=TorchConfig(backend="nccl" if settings.gpu else "gloo"),
            scaling_config=scaling(
                num_workers=settings.workers,
                use_gpu=settings.gpu,
                resources_per_worker={"CPU": settings.cpus, **({"GPU": 1} if settings.gpu else {})},
                label_selector=self._job.config.placement.learner or None,
            ),
            run_config=TrainRunConfig(
                name="ray_train",
                storage_path=str(self._job.folder),
                failure_config=FailureConfig(max_failures=MAX_LEARNER_RESTARTS),
            ),
        )
        trainer.fit()
