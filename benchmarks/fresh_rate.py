"""Is the fresh rate what was asked for? A learner that only takes batches, producers that could always bring more.

A target is given in fresh pairs per window of a learner step: 1 means as many fresh pairs per step as it has windows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import numpy as np
import ray

from embodichain.contracts import WindowSpec
from embodichain.replay.accounting import ReplayStats
from embodichain.replay.client import ReplayClient
from embodichain.replay.config import ReplayConfig
from embodichain.replay.fakes import fake_episode
from embodichain.replay.shard import start_shards
from embodichain.replay.writer import ReplayWriter

WINDOW = WindowSpec(frames=4, tau=8, chunk=16)
SHARDS, BATCH, MAX_REUSE = 2, 64, 200
WARM_UP = 0.25  # share of the steps that the steady figure leaves out


class Producer(threading.Thread):
    """Offers an episode at once whenever the replay has taken one."""

    def __init__(self, writer: ReplayWriter, first: int) -> None:
        super().__init__(daemon=True)
        self._writer, self._seed = writer, first
        self.stop = False

    def run(self) -> None:
        """Until `stop`."""
        waiting = [fake_episode(self._seed, 100, 2, 3, state_dim=1)]
        while not self.stop:
            waiting = self._writer.append(waiting, timeout_s=0.5).retry
            if not waiting:
                self._seed += 1
                waiting = [fake_episode(self._seed, 60 + self._seed * 7919 % 81, 2, 3, state_dim=1)]


def run(targets: list[float], steps: int) -> Iterator[dict[str, object]]:
    """A row per target. Raises `ValueError` for one that the bound forbids, before anything starts."""
    for target in targets:
        settings(target).share(WINDOW)
    return _measure_all(targets, steps)


def _measure_all(targets: list[float], steps: int) -> Iterator[dict[str, object]]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    for target in targets:
        yield measure(target, steps)
    ray.shutdown()


def settings(target: float) -> ReplayConfig:
    """The replay of one target."""
    return ReplayConfig(
        shards=SHARDS,
        capacity_pairs=100_000,
        min_size_pairs=2_000,
        max_reuse=MAX_REUSE,
        fresh_per_step=target * BATCH,
        step_windows=BATCH,
    )


def measure(target: float, steps: int) -> dict[str, object]:
    """Hold one target for `steps` learner steps through real shards."""
    shards = start_shards(settings(target), WINDOW)
    producers = [Producer(ReplayWriter(shards), 10_000_000 * k) for k in range(3)]
    for producer in producers:
        producer.start()
    client = ReplayClient(shards, WINDOW, BATCH)
    fresh: list[int] = []
    uses, began = 0, time.monotonic()
    while len(fresh) < steps:
        item = client.next_batch(60.0)
        if item is None:
            raise RuntimeError(f"target {target}: no batch within 60 s after {len(fresh)} steps")
        fresh.append(item[1].fresh_pairs)
        uses += item[1].uses
    seconds = time.monotonic() - began
    for producer in producers:
        producer.stop = True
        producer.join()
    stats = ReplayStats.merge(ray.get([shard.stats.remote() for shard in shards]))
    for shard in shards:
        ray.kill(shard)
    steady = float(np.mean(fresh[int(WARM_UP * steps) :]))
    wanted = target * BATCH
    return {
        "target_per_window": target,
        "target_per_step": wanted,
        "steps": steps,
        "achieved_per_step": float(np.mean(fresh)),
        "error": float(np.mean(fresh)) / wanted - 1.0,
        "steady_per_step": steady,
        "steady_error": steady / wanted - 1.0,
        "reuse_mean": uses / sum(fresh),
        "reuse_max": stats.reuse_max,
        "evicted_unused_pairs": stats.evicted_unused_pairs,
        "steps_per_s": steps / seconds,
    }
