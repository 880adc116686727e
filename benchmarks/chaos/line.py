"""A run without its learner and evaluators: the real pool, simulators and shards, and a witness who takes batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
from ray.actor import ActorHandle

from benchmarks.chaos.witness import Witness
from embodichain.actors.config import PoolConfig
from embodichain.actors.flight import start_recorder
from embodichain.actors.pool import ActorPool
from embodichain.actors.quarantine import Quarantine
from embodichain.actors.recipes import RecipeStream
from embodichain.actors.worker import WorkReport
from embodichain.app.components import make_encoder, make_session, start_sim_actor
from embodichain.app.config import RunConfig
from embodichain.contracts import Episode, Recipe, WindowSpec
from embodichain.replay.client import ReplayClient
from embodichain.replay.config import ReplayConfig
from embodichain.replay.shard import start_shards
from embodichain.rollout import RolloutOptions, make_episode
from tasks.session import sim_hash

PATIENCE_S = 300.0  # whatever takes longer is stuck
BATCH = 16


def line_config(**settings: Any) -> RunConfig:
    """Pick-and-place with one quick simulator; `settings` are those of the pool."""
    return RunConfig(
        tasks={"pick_place": 1.0},
        window=WindowSpec(frames=2, tau=8, chunk=8),
        actors=PoolConfig(**{"count": 1, "cpus": 0.5, "replay_fraction": 0.0, **settings}),
        replay=ReplayConfig(shards=2, capacity_pairs=50_000, max_reuse=8, min_size_pairs=200),
    )


class Line:
    """Starts everything; driven by `turn()`, ended as a context manager. Ray must be there.

    Args:
        config: what to start, and where (`placement`).
        folder: for ledgers and the quarantine; every node must see it.
    """

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.config = config
        self.stream = RecipeStream(weights=config.tasks, domain=config.domain, run_seed=0, sim_hash=sim_hash())
        self.shards = start_shards(
            config.replay, config.window, directory=folder, num_cpus=0.0, labels=config.placement.shard_labels()
        )
        ray.get([shard.ping.remote() for shard in self.shards])
        self.recorder = start_recorder()
        self.quarantine = Quarantine(folder / "quarantine.jsonl")
        self.client = ReplayClient(self.shards, config.window, BATCH, sample_timeout_s=0.5, retry_s=0.2)
        self.witness = Witness(config.window, config.replay.max_reuse)
        self.arrived: dict[int, float] = {}  # shard -> when the newest episode seen of it had entered
        self._pids: dict[ActorHandle, Any] = {}
        self.pool = ActorPool(
            config.actors, self._start, self.stream.next, lambda: True, self.recorder, self.quarantine
        )

    def __enter__(self) -> Line:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.pool.stop()
        for actor in (*self.shards, self.recorder):
            ray.kill(actor)

    def _start(self) -> Any:
        actor = start_sim_actor(self.config, self.shards, self.recorder)
        self._pids[actor] = actor.ready.remote()
        return actor

    def pid(self, actor: ActorHandle) -> int:
        """Process id of a simulator, once it is up."""
        return int(ray.get(self._pids[actor]))

    def turn(self) -> list[WorkReport]:
        """One turn of the driver's loop; the witness takes a batch if one is there."""
        reports = self.pool.poll(0.05)
        item = self.client.next_batch(0.0)
        if item is not None:
            self.witness.add(item[0])
            for shard, inserted_at in zip(item[0].shard.tolist(), item[0].inserted_at.tolist(), strict=True):
                self.arrived[shard] = max(inserted_at, self.arrived.get(shard, 0.0))
        return reports

    def until(self, condition: Callable[[], bool], what: str) -> float:
        """Turn until the condition holds; the seconds that took. Raises `TimeoutError` after `PATIENCE_S`."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > PATIENCE_S:
                raise TimeoutError(f"no {what} within {PATIENCE_S:g} s: {self.pool.counts}")
            self.turn()
        return time.monotonic() - began

    def simulating(self) -> list[Recipe]:
        """What is being simulated right now."""
        flying = self.pool.outstanding()
        states = ray.get(self.recorder.states.remote([recipe.id for recipe in flying]))
        return [recipe for recipe, state in zip(flying, states, strict=True) if state == "simulating"]

    def all_working(self) -> bool:
        """Whether every simulator is up, and simulates or has simulated."""
        up, _ = ray.wait(
            [self._pids[actor] for actor in self.pool.actors()], num_returns=self.config.actors.count, timeout=0
        )
        return len(up) == self.config.actors.count and len(self.simulating()) == self.config.actors.count

    def mean_episode_s(self) -> float:
        """Seconds of simulating per recipe so far."""
        return self.pool.counts.busy_s / max(1, self.pool.counts.generated)

    def broken(self, audited: int) -> list[str]:
        """Promises about reuse and whole episodes that what was delivered breaks; `audited` episodes are made again."""
        delivered = self.witness.recipes
        drawn = [self.stream.at(index) for index in range(self.stream.drawn)]
        recipes = {recipe.id: recipe for recipe in drawn}
        found = self.witness.over_bound()
        found += [f"{id_}: nobody drew that recipe" for id_ in delivered if id_ not in recipes]
        found += [f"{r.id}: quarantined, and delivered" for r in drawn if r in self.quarantine and r.id in delivered]
        session, encoder = make_session(self.config, render=False), make_encoder(self.config)
        make = partial(_again, recipes, session, encoder, RolloutOptions(tau=self.config.window.tau))
        return found + self.witness.audit(delivered[-audited:], make)


def _again(recipes: dict[str, Recipe], session: Any, encoder: Any, options: RolloutOptions, recipe_id: str) -> Episode:
    episode, verdict, _ = make_episode(recipes[recipe_id], session, encoder, options)
    if episode is None or not verdict.accepted:
        raise RuntimeError(f"{recipe_id} was delivered, and is rejected when made again: {verdict.reasons}")
    return episode
