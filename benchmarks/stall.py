"""Does the replay keep a learner busy? The same learner, fed from the replay and from tensors that lie in memory.

Both sides take turns, round by round, with the same model, the same batch size and the same windows to learn from.
The replay side is what a run's learner has: shards in processes of their own, a client, a thread that prepares the next
batch. It is saturated: it holds more than the learner asks for, and no limiter holds it back.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import numpy as np
import ray
import torch

from embodichain.app.cluster import connect
from embodichain.app.components import make_encoder
from embodichain.app.config import RunConfig
from embodichain.encoders.text import TextEncoder
from embodichain.replay.assembly import BatchInfo
from embodichain.replay.client import ReplayClient
from embodichain.replay.config import ReplayConfig
from embodichain.replay.fakes import fake_episode
from embodichain.replay.prefetch import Prefetcher
from embodichain.replay.shard import start_shards
from embodichain.replay.writer import ReplayWriter
from learner.batch import TensorBatch, prepare_batch
from learner.build import build_model
from learner.config import DataSpec
from learner.feed import DeviceFeed
from learner.train_step import TrainState

EPISODES, LENGTH = 200, 120
IN_MEMORY_BATCHES = 8
WARM_UP = 5
TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Side:
    """One round of one side: seconds in all, seconds of them waiting for data."""

    total_s: float
    stall_s: float


class Bench:
    """Shards, a client and a learner as in a run of `config`.

    Args:
        config: whose window, batch, network and threads are taken.
        device: of the learner.
    """

    def __init__(self, config: RunConfig, folder: Path, device: str) -> None:
        encoder = make_encoder(config)
        tokens, channels = encoder.max_tokens, encoder.channels
        endless = ReplayConfig(
            shards=config.replay.shards, capacity_pairs=10**6, max_reuse=10**6, min_size_pairs=LENGTH
        )
        self.shards = start_shards(endless, config.window, directory=folder, num_cpus=0)
        writer = ReplayWriter(self.shards)
        for seed in range(EPISODES):
            writer.append([fake_episode(seed, LENGTH, tokens, channels)])
        self.text, self.feed = TextEncoder(), DeviceFeed(device)
        self.size = config.learner.batch_windows
        self.client = ReplayClient(
            self.shards,
            config.window,
            self.size,
            transport=config.replay.transport,
            allocate=self.feed.allocate,
        )
        data = DataSpec(
            tokens=tokens,
            channels=channels,
            chunk=config.window.chunk,
            tau=config.window.tau,
            text_dim=self.text.dim,
            encoder_id=encoder.id,
            text_encoder_id=self.text.id,
        )
        model = build_model(config.learner.network, data, seed=0).to(device)
        self.state = TrainState(model, config.learner.train)
        self.held = [self._make(TIMEOUT_S)[0] for _ in range(IN_MEMORY_BATCHES)]  # type: ignore[index]
        self.batches = Prefetcher(self._make)

    def _make(self, timeout_s: float) -> tuple[TensorBatch, BatchInfo] | None:
        delivered = self.client.next_batch(timeout_s)
        if delivered is None:
            return None
        batch, info = delivered
        return self.feed.put(prepare_batch(batch, self.text.encode(batch.instruction))), info

    def from_replay(self) -> TensorBatch:
        """The next batch of the stream."""
        item = self.batches.next(TIMEOUT_S)
        if item is None:
            raise RuntimeError(f"no batch from the replay within {TIMEOUT_S:g} s")
        return self.feed.take(item[0])

    def round(self, take: Callable[[], TensorBatch], steps: int) -> Side:
        """Learn from `steps` batches of one side."""
        stall_s, began = 0.0, time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            batch = take()
            stall_s += time.perf_counter() - asked
            self.state.step(batch, 0.5)
        if self.feed.device.type == "cuda":
            torch.cuda.synchronize()
        return Side(total_s=time.perf_counter() - began, stall_s=stall_s)

    def close(self) -> None:
        """Stop the thread and the shards."""
        self.batches.close()
        self.client.close()
        for shard in self.shards:
            ray.kill(shard)


def run(config: RunConfig, rounds: int, steps: int) -> Iterator[dict[str, object]]:
    """One row: both sides' samples per second, their ratio, and the stall fraction."""
    device = "cuda" if config.learner.gpu else "cpu"
    torch.set_num_threads(config.learner.threads)
    config = replace(config, ray=replace(config.ray, cpus=8))
    os.environ.setdefault("RAY_worker_niceness", "0")  # as in `bench replay`: all at one priority
    connect(config)
    try:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(config, Path(folder), device)
            memory = cycle(bench.held)
            sides: dict[str, list[Side]] = {"memory": [], "replay": []}
            takes: dict[str, Callable[[], TensorBatch]] = {"memory": memory.__next__, "replay": bench.from_replay}
            for take in takes.values():
                bench.round(take, WARM_UP)
            transport = "/".join(sorted(set(bench.client.transports)))
            for index in range(rounds):
                for name in ("memory", "replay") if index % 2 == 0 else ("replay", "memory"):
                    sides[name].append(bench.round(takes[name], steps))
            bench.close()
            yield {**_row(config, bench, sides, steps), "transport": transport}
    finally:
        ray.shutdown()


def _row(config: RunConfig, bench: Bench, sides: dict[str, list[Side]], steps: int) -> dict[str, object]:
    rates = {name: [bench.size * steps / side.total_s for side in own] for name, own in sides.items()}
    ratios = [a / b for a, b in zip(rates["replay"], rates["memory"], strict=True)]
    total, stalled = (sum(getattr(side, key) for side in sides["replay"]) for key in ("total_s", "stall_s"))
    return {
        "model": config.learner.network.kind,
        "parameters": sum(p.numel() for p in bench.state.model.parameters()),
        "threads": config.learner.threads,
        "batch_windows": bench.size,
        "steps": steps * len(ratios),
        "memory_samples_per_s": float(np.median(rates["memory"])),
        "replay_samples_per_s": float(np.median(rates["replay"])),
        "ratio": float(np.median(ratios)),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "stall_fraction": stalled / total,
    }
