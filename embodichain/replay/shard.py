"""The Ray actor around one shard's store. Owns: waiting, and the actor's life; everything else is `ShardStore`'s.

Producers that wait for the limiter and learners that wait for data have their own threads (Ray concurrency groups),
so neither can lock the other out. Every wait has a time-out: a producer is then told to try again, a learner gets
None. A killed actor is started again by Ray, empty, and reads its ledger.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import ray

from embodichain.archive import Archive, ArchiveSink, ArchiveStatus
from embodichain.contracts import Episode, WindowSpec
from embodichain.replay import snapshot
from embodichain.replay.accounting import ReplayStats
from embodichain.replay.config import ReplayConfig
from embodichain.replay.ledger import PassLedger
from embodichain.replay.serving import Endpoint, SlotServer
from embodichain.replay.store import AppendStatus, SampleReply, ShardStore


@dataclass(frozen=True, kw_only=True)
class AppendReply:
    """Recipe ids by what became of them; send those under `retry` again, and none of those under `full`."""

    accepted: tuple[str, ...] = ()
    duplicate: tuple[str, ...] = ()
    retry: tuple[str, ...] = ()
    full: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pong:
    """Signs of life: the shard's index, its process id, seconds since it started, and passes its ledger knew then."""

    shard: int
    pid: int
    uptime_s: float
    passes_recovered: int


class ReplayShard:
    """One shard behind Ray; start it with `start_shards`. Usable without Ray as a plain object.

    Args:
        index: of the shard.
        config: the whole replay's settings; the shard takes its share.
        window: how windows are cut.
        ledger_path: file of the pass ledger; None keeps it in memory, and a restart forgets it.
        seed: of the shard's random choices.
        archive: every episode that the shard has taken is also kept there.
    """

    def __init__(
        self,
        index: int,
        config: ReplayConfig,
        window: WindowSpec,
        *,
        ledger_path: Path | None = None,
        seed: int = 0,
        archive: Archive | None = None,
    ) -> None:
        ledger = PassLedger(ledger_path)
        self._recovered = sum(ledger.passes.values())
        self._started = time.monotonic()
        self._sink = ArchiveSink(archive, index) if archive is not None else None
        # A shard that comes back draws other phases than it did in its first life.
        self.store = ShardStore(
            config.share(window), window, ledger=ledger, seed=seed + 1_000_003 * self._recovered, shard=index
        )
        self._server: SlotServer | None = None

    @ray.method(concurrency_group="insert")
    def append(self, episodes: Sequence[Episode], timeout_s: float = 5.0) -> AppendReply:
        """Append episodes, waiting up to `timeout_s` seconds in all for the limiter. Safe to repeat.

        Raises:
            ValueError: naming the field, if an episode breaks the contract or does not fit those held. Those before
                it in the list stay accepted.
        """
        until = time.monotonic() + timeout_s
        outcome: dict[AppendStatus, list[str]] = {status: [] for status in AppendStatus}
        for episode in episodes:
            status = self.store.append(episode)
            while status is AppendStatus.RETRY and self.store.wait_insert(until - time.monotonic()):
                status = self.store.append(episode)
            outcome[status].append(episode.recipe.id)
            if self._sink is not None and status is not AppendStatus.RETRY:
                # A known one too: the shard's life before this one may have died between taking it and keeping it.
                self._sink.append(episode)
        return AppendReply(**{status.value: tuple(ids) for status, ids in outcome.items()})

    @ray.method(concurrency_group="sample")
    def sample(self, windows: int, timeout_s: float = 5.0) -> SampleReply | None:
        """Up to `windows` windows; waits for the first one, and is None if `timeout_s` seconds bring none."""
        until = time.monotonic() + timeout_s
        while (reply := self.store.sample(windows)) is None:
            if not self.store.wait_sample(until - time.monotonic()):
                return None
        return reply

    @ray.method(concurrency_group="serve")
    def endpoint(self) -> Endpoint:
        """Where consumers get windows, on this node and on others; serving starts with the first question."""
        if self._server is None:
            node, host = "", ""
            if ray.is_initialized():
                node, host = ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                host = ""  # what Ray is told to encrypt is not sent beside it in the clear
            self._server = SlotServer(self.store, node, host)
        return self._server.endpoint

    @ray.method(concurrency_group="control")
    def expect(self, inserts: bool) -> None:
        """Whether more episodes may come; see `RateLimiter.expect`. A shard that restarts expects them again."""
        self.store.limiter.expect(inserts)

    @ray.method(concurrency_group="control")
    def update_priorities(self, priorities: dict[str, float]) -> int:
        """Set the priorities of held episodes by recipe id; see `ShardStore.update_priorities`."""
        return self.store.update_priorities(priorities)

    @ray.method(concurrency_group="control")
    def stats(self) -> ReplayStats:
        """Every counter of this shard."""
        return self.store.stats()

    @ray.method(concurrency_group="control")
    def archived(self) -> ArchiveStatus:
        """What this shard has archived since it started."""
        return self._sink.status() if self._sink is not None else ArchiveStatus()

    @ray.method(concurrency_group="control")
    def save(self, path: str) -> None:
        """Write the shard to a file: on its node, or any fsspec path."""
        snapshot.save(self.store, path)

    @ray.method(concurrency_group="control")
    def restore(self, path: str) -> bool:
        """Fill the (empty) shard from a file; True if it goes on exactly where it was saved."""
        return snapshot.restore(self.store, path)

    @ray.method(concurrency_group="control")
    def ping(self) -> Pong:
        """Answer at once, whatever else waits."""
        return Pong(
            shard=self.store.shard,
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._started,
            passes_recovered=self._recovered,
        )


class ShardOptions(TypedDict, total=False):
    """How a shard is started.

    Attributes:
        directory: where ledgers live (`shard-<i>.ledger.jsonl`); without one they are kept in memory.
        seed: of all random choices; 0 by default.
        num_cpus: Ray CPUs reserved per shard, a fraction; 0.1 by default.
        name: actors are called `<name>-<i>`; without one they have no name.
        waiting_producers: appends that can wait at one shard at once, 16 by default; more queue up behind them.
        labels: node labels that the shards need; any node by default.
        archive: every accepted episode is also kept there, each shard's in a shard of its own.
    """

    directory: Path | None
    seed: int
    num_cpus: float
    name: str | None
    waiting_producers: int
    labels: dict[str, str] | None
    archive: Archive | None


def start_shard(index: int, config: ReplayConfig, window: WindowSpec, **options: Unpack[ShardOptions]) -> Any:
    """Start one shard as an actor that Ray restarts whenever it dies."""
    groups = {"insert": options.get("waiting_producers", 16), "sample": 8, "control": 2, "serve": 1}
    remote: Any = ray.remote  # its stubs do not know concurrency_groups
    cpus, name, directory = options.get("num_cpus", 0.1), options.get("name"), options.get("directory")
    actor = remote(num_cpus=cpus, max_restarts=-1, max_task_retries=0, concurrency_groups=groups)(ReplayShard)
    return actor.options(
        name=f"{name}-{index}" if name is not None else None, label_selector=options.get("labels") or {}
    ).remote(
        index,
        config,
        window,
        ledger_path=directory.resolve() / f"shard-{index}.ledger.jsonl" if directory is not None else None,
        seed=options.get("seed", 0),
        archive=options.get("archive"),
    )


def start_shards(config: ReplayConfig, window: WindowSpec, **options: Unpack[ShardOptions]) -> list[Any]:
    """Start `config.shards` actors that Ray restarts whenever they die; their handles by shard index.

    Raises:
        ValueError: if config and window do not go together.
    """
    config.share(window)
    return [start_shard(index, config, window, **options) for index in range(config.shards)]
