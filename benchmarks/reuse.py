"""The reuse bound under fire: concurrent consumers, shards killed at random, every delivered window recounted.

Consumers count each pair under the loss of each window that reaches them, from the masks alone, before they do
anything else. Producers keep sending episodes, also those that a shard has lost or used up, as producers do after a
crash. Shards are killed by `SIGKILL`; Ray starts them again, empty but for their ledger.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayActorError

from embodichain.contracts import Batch, WindowSpec
from embodichain.replay.accounting import ReplayStats
from embodichain.replay.client import ReplayClient
from embodichain.replay.config import ReplayConfig
from embodichain.replay.fakes import fake_episode
from embodichain.replay.shard import start_shards
from embodichain.replay.writer import ReplayWriter

WINDOW = WindowSpec(frames=4, tau=8, chunk=16)
SHARDS, CONSUMERS, PRODUCERS, BATCH = 2, 4, 3, 64
LENGTHS = (60, 300)  # control steps of the shortest and longest episode
KILL_EVERY_S = (3.0, 9.0)
AGAIN = 300  # episodes back from the newest from which one is sent once more


@dataclass(kw_only=True)
class PairCounts:
    """Uses of every pair in the windows that were received: recipe id -> u16[T].

    Attributes:
        window: how windows are cut. `longest`: control steps of the longest episode.
    """

    window: WindowSpec = WINDOW
    longest: int = LENGTHS[1]
    uses: dict[str, np.ndarray] = field(default_factory=dict)
    windows: int = 0

    def add(self, batch: Batch) -> None:
        """Count a batch, a pair once per window, however many chunks of it hold that pair."""
        seen = np.zeros((batch.size, self.longest), dtype=bool)
        b, j, n = np.nonzero(batch.action_mask)
        seen[b, batch.start[b] + (j - self.window.burn_in) * self.window.tau + n] = True
        for row, recipe_id in zip(seen, batch.recipe_id, strict=True):
            count = self.uses.get(recipe_id)
            if count is None:
                count = self.uses[recipe_id] = np.zeros(self.longest, dtype=np.uint16)
            count += row
        self.windows += batch.size

    def merge(self, other: PairCounts) -> None:
        """Add what another consumer received."""
        self.windows += other.windows
        for recipe_id, count in other.uses.items():
            have = self.uses.setdefault(recipe_id, np.zeros_like(count))
            have += count


class Consumer:
    """One learner: takes batches until it is told to stop, and counts them."""

    def __init__(self, shards: list[Any]) -> None:
        self._client = ReplayClient(shards, WINDOW, BATCH, sample_timeout_s=0.5, retry_s=0.2)
        self._counts = PairCounts()

    def take(self, seconds: float) -> int:
        """Take batches for so long; windows received so far."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            item = self._client.next_batch(0.5)
            if item is not None:
                self._counts.add(item[0])
        return self._counts.windows

    def counts(self) -> PairCounts:
        """Everything received."""
        return self._counts


class Producer:
    """Sends new episodes, and old ones again."""

    def __init__(self, shards: list[Any], first: int) -> None:
        self._writer, self._next, self._stride = ReplayWriter(shards, retry_s=0.2), first, PRODUCERS
        self._first, self._random = first, random.Random(first)

    def push(self, seconds: float) -> int:
        """Send for so long; episodes that entered."""
        until, accepted = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            episodes = [make_episode(self._next + i * self._stride) for i in range(8)]
            self._next += 8 * self._stride
            sent = (self._next - self._first) // self._stride
            back = [self._random.randrange(1, min(AGAIN, sent) + 1) for _ in range(4)]
            episodes += [make_episode(self._next - i * self._stride) for i in back]
            while episodes and time.monotonic() < until:
                report = self._writer.append(episodes, timeout_s=1.0)
                accepted, episodes = accepted + report.accepted, report.retry
        return accepted


def make_episode(seed: int) -> Any:
    """Episode number `seed`; the same whenever it is made."""
    low, high = LENGTHS
    return fake_episode(seed, low + seed * 7919 % (high - low + 1), 2, 3, mistakes=0.1 * (seed % 3 == 0), state_dim=1)


def run(draws: int, max_reuse: int) -> Iterator[dict[str, object]]:
    """One row, and how far it is on the way there: `draws` windows through real shards."""
    config = ReplayConfig(
        shards=SHARDS,
        capacity_pairs=200_000,
        min_size_pairs=4_000,
        max_reuse=max_reuse,
        samples_per_insert=0.8 * max_reuse,
    )
    chance = random.Random(0)
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        shards = start_shards(config, WINDOW, directory=Path(folder))
        consumer_class: Any = ray.remote(num_cpus=0.5)(Consumer)
        producer_class: Any = ray.remote(num_cpus=0.5)(Producer)
        consumers = [consumer_class.remote(shards) for _ in range(CONSUMERS)]
        producers = [producer_class.remote(shards, k) for k in range(PRODUCERS)]
        windows = kills = episodes = 0
        while windows < draws:
            span = chance.uniform(*KILL_EVERY_S)
            taking = [consumer.take.remote(span) for consumer in consumers]
            pushing = [producer.push.remote(span) for producer in producers]
            time.sleep(span / 2)
            if kill(chance.choice(shards)):
                kills += 1
            episodes += sum(ray.get(pushing))
            windows = sum(ray.get(taking))
            yield {"windows": windows, "kills": kills}
        wait_for(shards)
        total = PairCounts()
        for consumer in consumers:
            total.merge(ray.get(consumer.counts.remote()))
        stats = ReplayStats.merge(ray.get([shard.stats.remote() for shard in shards]))
    ray.shutdown()
    yield row(total, stats, episodes, kills, max_reuse, time.monotonic() - began)


def kill(shard: Any) -> bool:
    """`SIGKILL` a shard's process; False if it is still coming back from the last time."""
    try:
        os.kill(ray.get(shard.ping.remote(), timeout=5).pid, signal.SIGKILL)
    except (RayActorError, GetTimeoutError):
        return False
    return True


def wait_for(shards: list[Any]) -> None:
    """Until every shard answers."""
    for shard in shards:
        while True:
            try:
                ray.get(shard.ping.remote(), timeout=60)
                break
            except RayActorError:
                time.sleep(0.05)


def row(
    total: PairCounts, stats: ReplayStats, episodes: int, kills: int, max_reuse: int, seconds: float
) -> dict[str, object]:
    """The figures of one measurement."""
    counts = np.concatenate(list(total.uses.values()))
    used = counts[counts > 0]
    return {
        "windows": total.windows,
        "consumers": CONSUMERS,
        "shards": SHARDS,
        "kills": kills,
        "episodes_entered": episodes,
        "pairs_used": int(used.size),
        "pair_uses": int(used.sum(dtype=np.int64)),
        "bound": max_reuse,
        "reuse_max": int(used.max()),
        "reuse_mean": float(used.mean()),
        "at_the_bound": float(np.mean(used == max_reuse)),
        "violations": int(np.sum(used > max_reuse)),
        "counted_by_shards_max": stats.reuse_max,
        "seconds": seconds,
    }
