"""What limits a thousand simulators and a hundred shards? Costs per call measured here, queues simulated with them.

Costs of a part that serves one thing at a time are processor seconds of its process, so that they say what the part
can do with a core of its own, whatever else this machine does. Bandwidth and waiting are wall time.
"""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import ray

from benchmarks.scale_model import Cluster, Costs, Stream
from embodichain.actors.config import PoolConfig
from embodichain.actors.flight import FlightRecorder, start_recorder
from embodichain.actors.pool import ActorPool
from embodichain.actors.quarantine import Quarantine
from embodichain.actors.worker import WorkReport
from embodichain.contracts import Episode, Recipe, WindowSpec
from embodichain.replay.client import ReplayClient
from embodichain.replay.config import ReplayConfig
from embodichain.replay.fakes import fake_episode
from embodichain.replay.shard import ReplayShard
from embodichain.replay.store import ShardStore

WINDOW = WindowSpec(frames=4, tau=8, chunk=16)
LENGTH = 150  # control steps of an episode
EPISODES = {  # tokens, channels, steps between frames, as the two encoders make them
    "state": (6, 41, 1),
    "image": (392, 384, 8),
}
SIMULATED_S = 5.0
GROWTH = (500, 1000, 2000, 4000, 8000)  # simulators


class _Clock:
    """Adds a clock of the actor's own processor time, all threads."""

    def cpu(self) -> float:
        return time.process_time()


class _Recorder(_Clock, FlightRecorder):
    pass


class _Shard(ReplayShard):
    @ray.method(concurrency_group="control")
    def cpu(self) -> float:
        """As of `_Clock`."""
        return time.process_time()


class _InstantSimulator:
    """Answers at once, or never while it `holds`."""

    def __init__(self, holds: bool) -> None:
        self._holds = holds

    async def ready(self) -> int:
        return 0

    async def produce(self, recipe: Recipe) -> WorkReport:
        import asyncio

        while self._holds:
            await asyncio.sleep(60)
        return WorkReport(recipe=recipe, accepted=True, reasons=(), pairs=1)


def cpu_per(actor: Any, work: Callable[[], int]) -> float:
    """Processor seconds of an actor per unit of `work`, which says how many units it was."""
    before = ray.get(actor.cpu.remote())
    units = work()
    return float(ray.get(actor.cpu.remote()) - before) / units


def own_cpu_per(work: Callable[[], int]) -> float:
    """Processor seconds of this process per unit of `work`."""
    before = time.process_time()
    units = work()
    return (time.process_time() - before) / units


def recorder_costs(calls: int) -> tuple[float, float]:
    """Median seconds of a call and its answer, and the recorder's own seconds per call."""
    remote: Any = ray.remote(num_cpus=0)
    recorder = remote(_Recorder).remote()
    times = []
    for index in range(calls):
        began = time.perf_counter()
        ray.get(recorder.begin.remote(str(index)))
        times.append(time.perf_counter() - began)

    def many() -> int:
        ray.get([recorder.end.remote(str(index)) for index in range(10 * calls)])
        return 10 * calls

    cost = cpu_per(recorder, many)
    ray.kill(recorder)
    return statistics.median(times), cost


def driver_costs(slots: int, recipes: int) -> tuple[float, float]:
    """The driver's own seconds per slot and turn of the pool, and per recipe."""
    numbers = iter(range(10**9))

    def pool(count: int, holds: bool) -> ActorPool:
        simulator: Any = ray.remote(num_cpus=0)(_InstantSimulator)
        actor, recorder = simulator.options(max_concurrency=10_000).remote(holds), start_recorder()
        draw = lambda: Recipe(task="pick_place", seed=next(numbers))  # noqa: E731
        return ActorPool(
            PoolConfig(count=count, episodes_per_process=10**9), lambda: actor, draw, lambda: True, recorder, _Nothing()
        )

    waiting = pool(slots, True)
    while len(waiting.outstanding()) < 3 * slots:
        waiting.poll(0.1)
    turns = 5
    look = own_cpu_per(lambda: sum(len(waiting.poll(0.0)) + slots for _ in range(turns)))
    waiting.stop()
    few = 4
    working = pool(few, False)
    while not working.counts.generated:
        working.poll(0.1)
    first, turns = working.counts.generated, 0

    def work() -> int:
        nonlocal turns
        while working.counts.generated < first + recipes:
            working.poll(0.1)
            turns += 1
        return working.counts.generated - first

    each = own_cpu_per(work) - turns * few * look / recipes
    working.stop()
    return look, max(each, 0.0)


class _Nothing(Quarantine):
    """Holds nothing, reads nothing."""

    def __init__(self) -> None:
        self._ids = set()


def shard_costs(episodes: list[Episode]) -> dict[str, float]:
    """Of one shard and of the learner's client, as in `Costs`."""
    window = replace(WINDOW, phase_step=episodes[0].tau)
    groups = {"insert": 2, "sample": 8, "serve": 1, "control": 2}
    remote: Any = ray.remote
    config = ReplayConfig(shards=1, capacity_pairs=10**6, min_size_pairs=1, max_reuse=10_000)
    shard = remote(num_cpus=0, concurrency_groups=groups)(_Shard).remote(0, config, window)

    def append() -> int:
        for episode in episodes:
            ray.get(shard.append.remote([episode]))
        return len(episodes)

    append_s = cpu_per(shard, append)
    figures = []
    for windows, requests in ((8, 200), (64, 60)):
        client = ReplayClient([shard], window, windows, prefetch=1, transport="tcp")

        def take(client: ReplayClient = client, requests: int = requests) -> int:
            for _ in range(requests):
                if client.next_batch(60.0) is None:
                    raise RuntimeError("a full shard delivered nothing within 60 s")
            return requests

        take()
        before = ray.get(shard.cpu.remote())
        mine = own_cpu_per(take)
        figures.append(((ray.get(shard.cpu.remote()) - before) / requests, mine))
    batch = client.next_batch(60.0)
    assert batch is not None
    nbytes = sum(a.nbytes for a in vars(batch[0]).values() if isinstance(a, np.ndarray)) / batch[0].size
    ray.kill(shard)
    (shard_few, client_few), (shard_many, client_many) = figures
    window_s, client_window_s = max(0.0, (shard_many - shard_few) / 56), max(0.0, (client_many - client_few) / 56)
    return {
        "append_s": append_s,
        "sample_s": max(0.0, shard_few - 8 * window_s),
        "window_s": window_s,
        "client_call_s": max(0.0, client_few - 8 * client_window_s),
        "client_window_s": client_window_s,
        "window_bytes": nbytes,
    }


def store_bandwidth(mb: int = 64, times: int = 5) -> float:
    """Bytes per second into and out of the object store together, wall time."""
    array = np.ones(mb * 2**20, dtype=np.uint8)
    began = time.perf_counter()
    for _ in range(times):
        np.copyto(array, ray.get(ray.put(array)))
    return times * array.nbytes / (time.perf_counter() - began)


def wake_up_s(times: int) -> float:
    """Median seconds from an append that lets a waiting sampler go to the end of its sample."""
    spent = []
    for seed in range(times):
        store = ShardStore(ReplayConfig(shards=1, capacity_pairs=10_000, min_size_pairs=1).share(WINDOW), WINDOW)
        done: list[float] = []

        def sample(store: ShardStore = store, done: list[float] = done) -> None:
            store.wait_sample(30.0)
            store.sample(1)
            done.append(time.perf_counter())

        waiting = threading.Thread(target=sample)
        waiting.start()
        time.sleep(0.02)
        episode = fake_episode(seed, LENGTH, 6, 41, state_dim=1)
        began = time.perf_counter()
        store.append(episode)
        waiting.join()
        spent.append(done[0] - began)
    return statistics.median(spent)


def measure(encoder: str) -> tuple[Costs, list[dict[str, object]]]:
    """Everything that the model needs, with episodes of one encoder, and rows that show it. Ray must be there."""
    tokens, channels, tau = EPISODES[encoder]
    count = 200 if tau == 1 else 40
    length = LENGTH - LENGTH % tau
    episodes = [fake_episode(seed, length, tokens, channels, tau=tau, state_dim=1) for seed in range(count)]
    round_trip_s, recorder_call_s = recorder_costs(200)
    look_s, recipe_s = driver_costs(slots=1000, recipes=1000)
    costs = Costs(
        round_trip_s=round_trip_s,
        recorder_call_s=recorder_call_s,
        driver_recipe_s=recipe_s,
        driver_slot_s=look_s,
        episode_bytes=float(episodes[0].nbytes()),
        **shard_costs(episodes),
    )
    rows: list[dict[str, object]] = [
        {"what": f"{encoder}: {name}", "measured": value if "bytes" in name else value * 1e6, "unit": unit}
        for name, value in vars(costs).items()
        for unit in ["bytes" if "bytes" in name else "us"]
    ]
    rows.append({"what": "limiter wake-up", "measured": wake_up_s(20) * 1e6, "unit": "us"})
    rows.append({"what": "ray.put + ray.get + copy", "measured": store_bandwidth() / 1e6, "unit": "MB/s"})
    return costs, rows


def simulate(encoder: str, cluster: Cluster, costs: Costs) -> list[dict[str, object]]:
    """A row per part of one simulated stream: how busy it was, and what it could do at most."""
    stream = Stream(cluster, costs).run(SIMULATED_S)
    name = f"{encoder}: {cluster.simulators} simulators, {cluster.shards} shards"
    rate = stream.episodes / SIMULATED_S
    turn_s = SIMULATED_S / max(1, stream.turns)
    parts = {
        "driver, recipes": (stream.driver.busy_s, 1 / costs.driver_recipe_s if costs.driver_recipe_s else 0.0),
        "flight recorder": (stream.recorder.busy_s, 1 / (2 * costs.recorder_call_s)),
        "busiest shard": (max(shard.busy_s for shard in stream.shards), cluster.shards / costs.append_s),
        "learner's client": (stream.client.busy_s, None),
        "busiest network card": (
            max(card.busy_s for card in (*stream.incoming, *stream.outgoing)),
            len(stream.incoming) * cluster.network_bytes_s / costs.episode_bytes,
        ),
        "simulators": (stream.simulated_s / cluster.simulators, cluster.simulators / cluster.episode_s),
    }
    rows: list[dict[str, object]] = [
        {"what": f"{name}: {part}", "busy": min(1.0, busy_s / SIMULATED_S), "episodes_per_s_at_most": most}
        for part, (busy_s, most) in parts.items()
    ]
    rows.append(
        {
            "what": f"{name}: all",
            "episodes_per_s": rate,
            "steps_per_s": stream.steps / SIMULATED_S,
            "driver_turn_ms": turn_s * 1e3,
        }
    )
    return rows


def first_limit(encoder: str, cluster: Cluster, costs: Costs) -> dict[str, object]:
    """How many simulators such a cluster keeps busy for nine tenths of the time, and what holds back more."""
    kept, held_back = 0, ""
    for simulators in GROWTH:
        rows = simulate(encoder, replace(cluster, simulators=simulators), costs)
        busy = {str(row["what"]).rsplit(": ", 1)[1]: float(str(row["busy"])) for row in rows if "busy" in row}
        if busy.pop("simulators") < 0.9:
            held_back = max(busy, key=lambda part: busy[part])
            break
        kept = simulators
    return {
        "what": f"{encoder}: simulators kept busy by {cluster.shards} shards",
        "simulators": kept,
        "held_back_by": held_back or f"nothing up to {GROWTH[-1]}",
    }


def run(cluster: Cluster) -> list[dict[str, object]]:
    """Costs, one simulated stream part by part, and where growth ends; for either encoder's episodes."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    rows: list[dict[str, object]] = []
    try:
        for encoder in EPISODES:
            costs, measured = measure(encoder)
            rows += [*measured, *simulate(encoder, cluster, costs), first_limit(encoder, cluster, costs)]
    finally:
        ray.shutdown()
    return rows
