"""The replay's data plane against copies, against NumPy in one process, and against other replay buffers.

Everybody makes batches of the same windows: token frames, proprioception, action chunks and the actions before each
frame, from episodes of the same size. Contenders take turns, round by round; a ratio is taken within its round, and
the median over rounds is shown. "Remote" is a shard on a second Ray node of the same machine: its batches travel
between two object stores over TCP on the loopback, without a network's limits.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster

from benchmarks import replay_peers
from embodichain.contracts import ACTION_DIM, Episode, WindowSpec
from embodichain.replay import PassLedger, ReplayConfig, ShardStore, fake_episode
from embodichain.replay.client import ReplayClient
from embodichain.replay.gather import batch_fields
from embodichain.replay.ring import Ring, RingLayout
from embodichain.replay.shard import start_shards
from embodichain.replay.writer import ReplayWriter

WARM_UP = 5  # batches
RING_SLOTS = 3  # one being filled, one waiting, one with the learner
NEAR, FAR = {"place": "near"}, {"place": "far"}  # labels of the driver's node, and of the second one
INGEST_EPISODES = 8
OBJECT_STORE_BYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Batches of one kind: B = `windows` of `spec`, L x C tokens, from `episodes` of `length` steps."""

    name: str
    spec: WindowSpec
    windows: int
    tokens: tuple[int, int]
    episodes: int
    length: int

    def episode(self, seed: int) -> Episode:
        """One of the episodes."""
        return fake_episode(seed, self.length, *self.tokens)

    @property
    def config(self) -> ReplayConfig:
        """A replay that holds them all and never runs dry, with every use debited."""
        return ReplayConfig(shards=1, capacity_pairs=10**6, max_reuse=10**6, min_size_pairs=8)

    @property
    def batch_bytes(self) -> int:
        """Bytes of the floating-point arrays of one batch; masks and provenance come on top and are not counted."""
        fields = batch_fields(self.spec, self.tokens, ACTION_DIM)
        names = ("tokens", "proprio", "action", "previous_action")
        return 4 * self.windows * sum(int(np.prod(fields[name][1])) for name in names)

    @property
    def episode_bytes(self) -> int:
        """Bytes of an episode's tokens, proprioception and actions."""
        return 4 * ((self.length + 1) * (int(np.prod(self.tokens)) + ACTION_DIM) + self.length * ACTION_DIM)


WORKLOADS = (
    Workload(
        name="image", spec=WindowSpec(frames=3, tau=8, chunk=16), windows=32, tokens=(64, 384), episodes=40, length=64
    ),
    Workload(
        name="pose", spec=WindowSpec(frames=4, tau=8, chunk=16), windows=64, tokens=(10, 41), episodes=100, length=120
    ),
)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of each repetition, and bytes of one."""

    seconds: np.ndarray
    size: int

    @property
    def rate(self) -> float:
        """MB/s over all repetitions."""
        return self.size * self.seconds.size / float(self.seconds.sum()) / 1e6


def measure(step: Callable[[], object], size: int, repeats: int) -> Timing:
    """Time `repeats` calls after a few warm ones."""
    for _ in range(WARM_UP):
        step()
    seconds = np.empty(repeats)
    for index in range(repeats):
        began = time.perf_counter()
        step()
        seconds[index] = time.perf_counter() - began
    return Timing(seconds=seconds, size=size)


@contextmanager
def two_nodes() -> Iterator[None]:
    """A Ray of two nodes on this machine: the driver's and another; its processes yield to nobody else's."""
    os.environ.setdefault("RAY_worker_niceness", "0")  # as what they are compared with
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 8,
            "object_store_memory": OBJECT_STORE_BYTES,
            "labels": NEAR,
            "include_dashboard": False,
        },
    )
    cluster.add_node(num_cpus=8, object_store_memory=OBJECT_STORE_BYTES, labels=FAR)
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    try:
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


@contextmanager
def shards_of(work: Workload, count: int, *, far: bool = False) -> Iterator[list[Any]]:
    """`count` shards that hold the workload's episodes, ledgers on disk."""
    with tempfile.TemporaryDirectory() as folder:
        config = ReplayConfig(**{**vars(work.config), "shards": count})
        where = FAR if far else NEAR
        shards = start_shards(config, work.spec, directory=Path(folder), num_cpus=0, labels=where)
        writer = ReplayWriter(shards)
        for seed in range(work.episodes):
            writer.append([work.episode(seed)])
        try:
            yield shards
        finally:
            for shard in shards:
                ray.kill(shard)


def numpy_gather(work: Workload, slots: int = 1) -> Callable[[], object]:
    """Windows at random from flat arrays, into arrays that exist: one `take` each, no masks, no accounting.

    One set of arrays stays in the processor's cache. Several are the slots of a ring in turn, in memory
    that another process could read: what a shard has to write to.
    """
    steps, rng, spec = work.episodes * work.length, np.random.default_rng(0), work.spec
    flat = {"tokens": work.tokens, "proprio": (ACTION_DIM,), "action": (ACTION_DIM,)}
    held = {name: rng.standard_normal((steps, *shape), dtype=np.float32) for name, shape in flat.items()}
    offsets = {
        "tokens": np.arange(spec.frames + 1) * spec.tau,
        "proprio": np.arange(spec.frames + 1) * spec.tau,
        "action": np.arange(spec.frames)[:, None] * spec.tau + np.arange(spec.chunk),
        "previous_action": np.arange(spec.frames)[:, None] * spec.tau - np.arange(spec.tau, 0, -1),
    }
    fields = batch_fields(spec, work.tokens, ACTION_DIM)
    if slots == 1:
        outs = [{name: np.zeros((work.windows, *shape), dtype) for name, (dtype, shape) in fields.items()}]
    else:
        ring, fd = Ring.create(RingLayout(generation=1, slots=slots, windows=work.windows, fields=fields))
        os.close(fd)
        outs = [ring.arrays(slot) for slot in range(slots)]
    turns = cycle(outs)
    last = steps - (spec.frames + 1) * spec.tau - spec.chunk

    def step() -> None:
        start, out = rng.integers(spec.tau, last, work.windows), next(turns)
        for name, offset in offsets.items():
            rows = start.reshape(-1, *[1] * offset.ndim) + offset
            held["action" if name == "previous_action" else name].take(rows, axis=0, out=out[name], mode="clip")

    return step


def memcpy(size: int) -> Callable[[], object]:
    """Copy one buffer of `size` bytes into another."""
    source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)
    return partial(np.copyto, target, source)


def local_store(work: Workload, folder: str) -> ShardStore:
    """A shard's store in this process, with its ledger on disk, filled."""
    store = ShardStore(work.config, work.spec, ledger=PassLedger(Path(folder) / "ledger"))
    for seed in range(work.episodes):
        store.append(work.episode(seed))
    return store


def sampling(work: Workload, rounds: int, repeats: int) -> list[dict[str, object]]:
    """Rows: who makes how many batches a second, and how long one takes."""
    size = work.batch_bytes
    with (
        tempfile.TemporaryDirectory() as folder,
        shards_of(work, 1) as one,
        shards_of(work, 2) as near,
        shards_of(work, 2, far=True) as far,
    ):
        store = local_store(work, folder)
        clients = {
            "same node, 1 shard": ReplayClient(one, work.spec, work.windows, transport="shared"),
            "same node": ReplayClient(near, work.spec, work.windows, transport="shared"),
            "same node, through Ray": ReplayClient(near, work.spec, work.windows, transport="ray"),
            "remote": ReplayClient(far, work.spec, work.windows),
            "remote, through Ray": ReplayClient(far, work.spec, work.windows, transport="ray"),
        }
        contenders: dict[str, Callable[[], object]] = {
            "memcpy": memcpy(size),
            "NumPy gather, in process": numpy_gather(work),
            f"NumPy gather, ring of {RING_SLOTS}": numpy_gather(work, RING_SLOTS),
            "store, in process": partial(store.sample, work.windows),
            **{name: client.next_batch for name, client in clients.items()},
            "plain actor call, same node": lambda: ray.get(one[0].sample.remote(work.windows)),
            "plain actor call, remote": lambda: ray.get(far[0].sample.remote(work.windows)),
        }
        peers = replay_peers.samplers(work)
        contenders |= {name: step for name, step in peers.items() if step is not None}
        rows = take_turns(contenders, size, rounds, repeats)
        for client in clients.values():
            client.close()
    missing: list[dict[str, object]] = [
        {"contender": name, "note": "not installed"} for name, step in peers.items() if step is None
    ]
    return [{"workload": work.name, "batch_mb": size / 1e6, **row} for row in [*rows, *missing]]


def take_turns(
    contenders: dict[str, Callable[[], object]], size: int, rounds: int, repeats: int
) -> list[dict[str, object]]:
    """One row per contender, after `rounds` rounds in which each made `repeats` batches."""
    timings: dict[str, list[Timing]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, step in contenders.items():
            timings[name].append(measure(step, size, repeats))
    return [_row(name, own, timings) for name, own in timings.items()]


RATIOS = {
    "x_numpy": "NumPy gather, in process",
    "x_torchrl": "torchrl SliceSampler",
}


def _row(name: str, own: list[Timing], timings: dict[str, list[Timing]]) -> dict[str, object]:
    seconds = np.concatenate([timing.seconds for timing in own])
    row: dict[str, object] = {
        "contender": name,
        "mb_per_s": float(np.median([timing.rate for timing in own])),
        "batches_per_s": float(np.median([1 / timing.seconds.mean() for timing in own])),
        "p50_ms": 1e3 * float(np.quantile(seconds, 0.5)),
        "p99_ms": 1e3 * float(np.quantile(seconds, 0.99)),
        "n": int(seconds.size),
    }
    call = f"plain actor call, {'remote' if 'remote' in name else 'same node'}"
    for key, other in {**RATIOS, "x_plain_call": call}.items():
        if other in timings:
            pairs = zip(own, timings[other], strict=True)
            row[key] = float(np.median([mine.rate / theirs.rate for mine, theirs in pairs]))
    return row


def ingest(work: Workload, rounds: int) -> list[dict[str, object]]:
    """Rows: MB of episodes a second into a store, a shard, and the peers."""
    steps: dict[str, Callable[[list[Episode]], object]] = {}
    with tempfile.TemporaryDirectory() as folder, shards_of(work, 2) as near, shards_of(work, 2, far=True) as far:
        store = local_store(work, folder)
        steps["store, in process"] = lambda episodes: [store.append(episode) for episode in episodes]
        steps["same node"] = ReplayWriter(near).append
        steps["remote"] = ReplayWriter(far).append
        peers = replay_peers.adders(work)
        steps |= {name: step for name, step in peers.items() if step is not None}
        rates: dict[str, list[float]] = {name: [] for name in ("memcpy", *steps)}
        size = work.episode_bytes * INGEST_EPISODES
        for index in range(rounds):
            rates["memcpy"].append(measure(memcpy(size), size, 3).rate)
            for name, step in steps.items():
                first = work.episodes + index * INGEST_EPISODES
                episodes = [work.episode(seed) for seed in range(first, first + INGEST_EPISODES)]
                began = time.perf_counter()
                step(episodes)
                rates[name].append(size / (time.perf_counter() - began) / 1e6)
    return [
        {
            "workload": work.name,
            "contender": f"ingest: {name}",
            "mb_per_s": float(np.median(own)),
            "n": rounds * INGEST_EPISODES,
        }
        for name, own in rates.items()
    ]


class Consumer:
    """A learner's client in a process of its own."""

    def __init__(self, shards: list[Any], work: Workload) -> None:
        self._client = ReplayClient(shards, work.spec, work.windows)

    def warm(self) -> list[str]:
        """Take some batches; returns how each shard is reached."""
        for _ in range(WARM_UP):
            self._client.next_batch()
        return self._client.transports

    def consume(self, seconds: float) -> list[float]:
        """Take batches for so long; seconds of each."""
        taken: list[float] = []
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            if self._client.next_batch() is not None:
                taken.append(time.perf_counter() - began)
        return taken


def growth(
    work: Workload, shard_counts: tuple[int, ...], consumer_counts: tuple[int, ...], seconds: float
) -> Iterator[dict[str, object]]:
    """A row for every number of shards and of consumers, all on one node."""
    remote: Any = ray.remote(num_cpus=0, label_selector=NEAR)(Consumer)
    for count in shard_counts:
        with shards_of(work, count) as shards:
            for consumers in consumer_counts:
                actors = [remote.remote(shards, work) for _ in range(consumers)]
                reached = ray.get([actor.warm.remote() for actor in actors])
                began = time.perf_counter()
                taken = np.concatenate(ray.get([actor.consume.remote(seconds) for actor in actors]))
                elapsed = time.perf_counter() - began
                for actor in actors:
                    ray.kill(actor)
                yield {
                    "workload": work.name,
                    "contender": f"{count} shards, {consumers} consumers",
                    "mb_per_s": work.batch_bytes * taken.size / elapsed / 1e6,
                    "batches_per_s": taken.size / elapsed,
                    "p50_ms": 1e3 * float(np.quantile(taken, 0.5)),
                    "p99_ms": 1e3 * float(np.quantile(taken, 0.99)),
                    "n": int(taken.size),
                    "note": "/".join(sorted({kind for kinds in reached for kind in kinds})),
                }


def run(workloads: tuple[str, ...], rounds: int, repeats: int, seconds: float) -> Iterator[list[dict[str, object]]]:
    """All rows, group by group; `seconds` for every number of shards and consumers, 0 to leave these out."""
    with two_nodes():
        for work in WORKLOADS:
            if work.name in workloads:
                yield sampling(work, rounds, repeats)
                yield ingest(work, rounds)
        if seconds > 0:
            for row in growth(WORKLOADS[0], (1, 2, 4, 8), (1, 2, 4), seconds):
                yield [row]
