"""A long generation without anybody at hand: what was accepted, what was rejected and why, and what broke.

The run's own pool and actors, every training task in turn, with a replay that takes everything and nobody who learns.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import ray

from embodichain.actors.flight import start_recorder
from embodichain.actors.pool import ActorPool, PoolConfig, PoolCounts
from embodichain.actors.quarantine import Quarantine
from embodichain.actors.recipes import RecipeStream
from embodichain.app.cluster import connect
from embodichain.app.components import start_sim_actor
from embodichain.app.config import RunConfig
from embodichain.contracts import wilson_interval
from embodichain.replay.config import ReplayConfig
from embodichain.replay.shard import start_shards
from tasks.session import sim_hash

CAPACITY_PAIRS = 50_000  # of the replay; the oldest episodes leave
START_TIMEOUT_S, HANG_TIMEOUT_S = 900.0, 300.0  # a machine that does other work besides is slow, not stuck


def generate(tasks: list[str], recipes: int, actors: int, domain: str, seed: int) -> Iterator[PoolCounts]:
    """Make `recipes` recipes; the counts so far after every report, and at last those of the whole run."""
    config = RunConfig(
        tasks=dict.fromkeys(tasks, 1.0),
        domain=domain,
        seed=seed,
        actors=PoolConfig(
            count=actors,
            cpus=1.0 / actors,
            niceness=0,
            start_timeout_s=START_TIMEOUT_S,
            hang_timeout_s=HANG_TIMEOUT_S,
        ),
        replay=ReplayConfig(capacity_pairs=CAPACITY_PAIRS),
    )
    stream = RecipeStream(weights=config.tasks, domain=domain, run_seed=seed, sim_hash=sim_hash())
    connect(config)
    with tempfile.TemporaryDirectory() as folder:
        shards = start_shards(config.replay, config.window, directory=Path(folder), num_cpus=0.0)
        ray.get([shard.ping.remote() for shard in shards])
        recorder = start_recorder()
        start_actor = partial(start_sim_actor, config, shards, recorder)
        quarantine = Quarantine(Path(folder) / "quarantine.jsonl")
        pool = ActorPool(config.actors, start_actor, stream.next, lambda: True, recorder, quarantine)
        while pool.counts.generated < recipes:
            if pool.poll(0.1):
                yield pool.counts
        pool.stop()
    ray.shutdown()


def rows(counts: PoolCounts, seconds: float) -> list[dict[str, object]]:
    """A row per task, then one of the whole run."""
    table: list[dict[str, object]] = []
    for task, own in sorted(counts.tasks.items()):
        low, high = wilson_interval(own["accepted"], own["generated"])
        table.append(
            {
                "task": task,
                "recipes": own["generated"],
                "accepted": own["accepted"] / own["generated"],
                "low": low,
                "high": high,
                "rejected": _listed(own["rejected"]),
            }
        )
    whole = {
        "task": "all",
        "recipes": counts.generated,
        "accepted": counts.accepted / counts.generated,
        "rejected": _listed(counts.rejected),
        "faults": _listed(counts.faults),
        "recycled": counts.recycled,
        "replays_equal": f"{counts.replay_checked - counts.rejected['replay_mismatch']} of {counts.replay_checked}",
        "pairs": counts.accepted_pairs,
        "minutes": seconds / 60,
    }
    return [*table, whole]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def run(tasks: list[str], recipes: int, actors: int, domain: str, seed: int) -> Iterator[list[dict[str, object]]]:
    """The table as it grows."""
    started = time.monotonic()
    for counts in generate(tasks, recipes, actors, domain, seed):
        yield rows(counts, time.monotonic() - started)
