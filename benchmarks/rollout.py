"""Generation: the actor pool against a bare loop, and what a rendered frame costs beside a physics step.

Both sides make the same recipes on the same machine in the same run; the ratio is what counts. The pool
side is the run's own pool, actors and shards, with nothing consuming the replay.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections import deque
from functools import partial
from pathlib import Path

import numpy as np
import ray

from embodichain.actors.flight import start_recorder
from embodichain.actors.pool import ActorPool, PoolConfig
from embodichain.actors.quarantine import Quarantine
from embodichain.app.cluster import connect
from embodichain.app.components import start_sim_actor
from embodichain.app.config import RunConfig
from embodichain.contracts import Recipe, seed_range
from embodichain.encoders import StateEncoder
from embodichain.replay.shard import start_shards
from embodichain.rollout import RolloutOptions, make_episode
from envs import RenderConfig
from tasks.registry import slots
from tasks.session import TaskSession, sim_hash


def bench_recipes(tasks: list[str], count: int) -> list[Recipe]:
    """`count` recipes from the `test` seed range, tasks in turn."""
    return [
        Recipe(task=tasks[i % len(tasks)], seed=seed_range("test").at(500_000 + i), sim_hash=sim_hash())
        for i in range(count)
    ]


def bare_loop(recipes: list[Recipe], warm_up: int) -> tuple[float, int]:
    """Verified episodes per minute of a plain loop in this process, and how many it verified."""
    encoder = StateEncoder(**slots(recipe.task for recipe in recipes))
    session, options = TaskSession(render=None), RolloutOptions()
    for recipe in recipes[:warm_up]:
        make_episode(recipe, session, encoder, options)
    started = time.perf_counter()
    accepted = sum(make_episode(recipe, session, encoder, options)[1].accepted for recipe in recipes[warm_up:])
    return 60 * accepted / (time.perf_counter() - started), accepted


def bare_loop_in_fresh_process(recipes: list[Recipe], warm_up: int) -> tuple[float, int]:
    """The same in a process of its own, as an actor would have it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(bare_loop, (recipes, warm_up))


def through_pool(config: RunConfig, recipes: list[Recipe], warm_up: int) -> tuple[float, int]:
    """Verified episodes per minute through the actor pool, measured after `warm_up` episodes."""
    connect(config)
    with tempfile.TemporaryDirectory() as folder:
        shards = start_shards(config.replay, config.window, directory=Path(folder), num_cpus=0.0)
        ray.get([shard.ping.remote() for shard in shards])
        queue = deque(recipes)
        # Past the end the pool keeps its actors busy with further seeds, so that no actor falls idle early.
        extra = iter(range(10**6))
        last = recipes[-1]

        def next_recipe() -> Recipe:
            return queue.popleft() if queue else Recipe(task=last.task, seed=last.seed + 1 + next(extra))

        recorder = start_recorder()
        start_actor = partial(start_sim_actor, config, shards, recorder)
        quarantine = Quarantine(Path(folder) / "quarantine.jsonl")
        pool = ActorPool(config.actors, start_actor, next_recipe, lambda: True, recorder, quarantine)
        while pool.counts.generated < warm_up:
            pool.poll(0.05)
        before, started = pool.counts.accepted, time.perf_counter()
        while pool.counts.generated < len(recipes):
            pool.poll(0.05)
        seconds, accepted = time.perf_counter() - started, pool.counts.accepted - before
        pool.stop()
    ray.shutdown()
    return 60 * accepted / seconds, accepted


def frame_cost(task: str, steps: int, size: int) -> dict[str, object]:
    """Median milliseconds of a physics-only control step and of one rendered camera frame."""
    session = TaskSession(render=RenderConfig(width=size, height=size))
    session.reset(Recipe(task=task, seed=seed_range("test").at(0)))
    plan = session.expert()
    session.observe(rgb=True)
    step_ms, frame_ms = [], []
    for t in range(steps):
        start = time.perf_counter()
        session.step(plan.action[min(t, len(plan.action) - 1)])
        middle = time.perf_counter()
        if t % 4 == 0:
            session.observe(rgb=True)
            frame_ms.append(1e3 * (time.perf_counter() - middle))
        step_ms.append(1e3 * (middle - start))
    session.close()
    step, frame = float(np.median(step_ms)), float(np.median(frame_ms))
    return {
        "what": f"rendered frame {size} px / physics step",
        "step_ms": step,
        "frame_ms": frame,
        "ratio": frame / step,
    }


def run(
    tasks: list[str], episodes: int, actors: int, rounds: int, warm_up: int, *, render: bool
) -> list[dict[str, object]]:
    """All rows of the benchmark: bare loop, pool, bare loop, pool, ..., bare loop.

    Each pool side is divided by the mean of its two neighbours, so that a machine that grows slower does not count
    for or against it; the last ratio is the median over `rounds`, between the lowest and the highest.
    """
    recipes = bench_recipes(tasks, episodes + warm_up)
    config = RunConfig(
        tasks=dict.fromkeys(tasks, 1.0),
        actors=PoolConfig(count=actors, cpus=1.0 / actors, niceness=0, replay_fraction=0.0),
    )

    def row(what: str, rate: float, verified: int) -> dict[str, object]:
        return {"what": what, "episodes_per_minute": rate, "verified": verified}

    before, verified = bare_loop_in_fresh_process(recipes, warm_up)
    rows, ratios = [row("bare loop", before, verified)], []
    for _ in range(rounds):
        pooled, verified = through_pool(config, recipes, warm_up)
        rows.append(row(f"pool of {actors}", pooled, verified))
        after, verified = bare_loop_in_fresh_process(recipes, warm_up)
        rows.append(row("bare loop", after, verified))
        ratios.append(pooled / ((before + after) / 2 * actors))
        before = after
    rows.append(
        {
            "what": f"pool / (bare loop x {actors})",
            "ratio": float(np.median(ratios)),
            "low": min(ratios),
            "high": max(ratios),
        }
    )
    if render:
        rows.append(frame_cost(tasks[0], 60, 128))
    return rows
