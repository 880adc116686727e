"""A shard killed while producers append and a learner samples; every window is compared with its episode."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import ray

from benchmarks.chaos.outcome import Outcome, Tick
from benchmarks.chaos.witness import Witness
from benchmarks.reuse import PRODUCERS, SHARDS, WINDOW, Producer, make_episode
from embodichain.contracts import Episode, Recipe
from embodichain.replay.accounting import ReplayStats
from embodichain.replay.client import ReplayClient
from embodichain.replay.config import ReplayConfig
from embodichain.replay.ledger import PassLedger
from embodichain.replay.shard import start_shards

BOUND = 6
PATIENCE_S = 120.0
BETWEEN_S = (0.5, 2.0)  # of undisturbed work before a kill
SEEDS = 1_000_000  # more than producers can send
SPAN_S = 1.0  # of one call to a producer


class _Work:
    """Producers that never stop, and a learner that takes what comes and remembers when."""

    def __init__(self, shards: list[Any]) -> None:
        self.shards = shards
        self.client = ReplayClient(shards, WINDOW, 64, sample_timeout_s=0.5, retry_s=0.2)
        self.witness = Witness(WINDOW, BOUND)
        producer: Any = ray.remote(num_cpus=0.1)(Producer)
        self._producers = [producer.remote(shards, k) for k in range(PRODUCERS)]
        self._pushing = {p.push.remote(SPAN_S): p for p in self._producers}
        self.accepted = 0
        self.newest: dict[int, float] = {}  # shard -> insertion time of the newest episode delivered by it

    def turn(self) -> None:
        """Keep producers going; take a batch."""
        for ref in ray.wait(list(self._pushing), num_returns=len(self._pushing), timeout=0)[0]:
            producer = self._pushing.pop(ref)
            self.accepted += ray.get(ref)
            self._pushing[producer.push.remote(SPAN_S)] = producer
        item = self.client.next_batch(0.1)
        if item is not None:
            self.witness.add(item[0])
            for shard, entered in zip(item[0].shard.tolist(), item[0].inserted_at.tolist(), strict=True):
                self.newest[shard] = max(entered, self.newest.get(shard, 0.0))

    def for_seconds(self, seconds: float) -> None:
        """Undisturbed work."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.turn()

    def until_delivered(self, shard: int, since: float) -> None:
        """Until a window comes from that shard of an episode that entered after `since` (seconds since the epoch)."""
        stop = time.monotonic() + PATIENCE_S
        while self.newest.get(shard, 0.0) <= since:
            if time.monotonic() > stop:
                raise TimeoutError(f"shard {shard} delivered nothing new within {PATIENCE_S:g} s")
            self.turn()

    def stop(self) -> None:
        """End every process."""
        for actor in (*self._producers, *self.shards):
            ray.kill(actor)


def killed(times: int, tick: Tick) -> Outcome:
    """`SIGKILL` to one of two shards. A restarted shard is empty but for its ledger, so what it delivers is new."""
    config = ReplayConfig(
        shards=SHARDS, capacity_pairs=50_000, min_size_pairs=1_000, max_reuse=BOUND, samples_per_insert=0.8 * BOUND
    )
    outcome, chance = Outcome(), random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        work = _Work(start_shards(config, WINDOW, directory=Path(folder)))
        try:
            for shard in range(SHARDS):
                work.until_delivered(shard, 0.0)
            for _ in range(times):
                work.for_seconds(chance.uniform(*BETWEEN_S))
                victim = chance.randrange(SHARDS)
                before: ReplayStats = ray.get(work.shards[victim].stats.remote())
                pid = ray.get(work.shards[victim].ping.remote()).pid
                began, since = time.monotonic(), time.time()
                os.kill(pid, signal.SIGKILL)
                work.until_delivered(victim, since)
                outcome.recovery_s.append(time.monotonic() - began)
                outcome.lost["episodes held"] += before.episodes_held
                tick()
        finally:
            work.stop()
        ledgers = [PassLedger(path) for path in Path(folder).glob("*.jsonl")]
    _audit(work.witness, ledgers, outcome)
    return outcome


def _audit(witness: Witness, ledgers: list[PassLedger], outcome: Outcome) -> None:
    """Every delivered window against its episode, every use against the ledgers.

    Padding, or a piece of another episode, would show; so would a use that no ledger knew of. Uses that a ledger knew
    of and nobody received are written off.
    """
    passes = {recipe_id: count for ledger in ledgers for recipe_id, count in ledger.passes.items()}
    made: dict[str, Episode] = {}
    seed = 0
    while passes.keys() - made.keys() and seed < SEEDS:
        recipe_id = Recipe(task="pick_place", seed=seed).id
        if recipe_id in passes:
            made[recipe_id] = make_episode(seed)
        seed += 1
    unknown = [recipe_id for recipe_id in witness.recipes if recipe_id not in made]
    outcome.broken += [f"{recipe_id}: delivered, and in no ledger" for recipe_id in unknown]
    outcome.broken += witness.over_bound()
    outcome.broken += witness.audit([r for r in witness.recipes if r in made], made.__getitem__)
    labels = {r: episode.label_valid for r, episode in made.items() if episode.label_valid is not None}
    debited = {r: count * int(labels[r].sum()) for r, count in passes.items() if r in labels}
    received = {r: int(witness.counts.uses[r].sum()) if r in witness.counts.uses else 0 for r in debited}
    outcome.broken += [
        f"{r}: {received[r]} uses, {debited[r]} were debited" for r in debited if received[r] > debited[r]
    ]
    outcome.lost[f"of {sum(debited.values())} uses written off"] = sum(debited.values()) - sum(received.values())
