"""The learner's end of the replay. Takes shards, hands on full batches; owns prefetching, and going on without a shard.

Requests are in flight at every shard at once, each for its part of a batch, so shards gather while the learner
computes. Parts are joined in the order of their arrival: a shard that is dead, restarting or short of data is made
up for by the others. What a shard had debited for a request that was lost with it stays debited.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from ray.exceptions import ObjectLostError, RayActorError

from embodichain.contracts import Batch, WindowSpec
from embodichain.replay.gather import concatenate, cut
from embodichain.replay.store import SampleReply


@dataclass(frozen=True, kw_only=True)
class BatchInfo:
    """What one batch cost.

    Attributes:
        fresh_pairs: first uses in it.
        uses: pair uses in it.
        context_reads: pairs read without loss.
        age_mean_s: mean seconds since the windows' episodes were inserted.
        stall_s: seconds the learner waited for it, empty-handed polls included.
        parts: requests it was joined from.
    """

    fresh_pairs: int
    uses: int
    context_reads: int
    age_mean_s: float
    stall_s: float
    parts: int


@dataclass(kw_only=True)
class _Peer:
    """One shard as the client sees it."""

    target: Any = None
    name: str = ""
    refs: set[Any] = field(default_factory=set)
    retry_at: float = 0.0
    checked: bool = False


class ReplayClient:
    """Pulls batches from all shards. One per learner process; not thread-safe.

    Args:
        shards: actor handles, or names (then looked up again whenever the actor is gone).
        spec: the windows that the shards cut; a shard that cuts others is refused at its first reply.
        batch_windows: B.
        prefetch: batches to have ahead, >= 1; also the requests in flight per shard.
        sample_timeout_s: how long a request may wait inside a shard.
        retry_s: pause before a shard that failed is asked again.
        namespace: Ray namespace of names.
    """

    def __init__(
        self,
        shards: Sequence[Any],
        spec: WindowSpec,
        batch_windows: int,
        *,
        prefetch: int = 2,
        sample_timeout_s: float = 2.0,
        retry_s: float = 0.5,
        namespace: str | None = None,
    ) -> None:
        if not shards or batch_windows < 1 or prefetch < 1:
            raise ValueError(
                f"{len(shards)} shards, batch_windows={batch_windows}, prefetch={prefetch}: expected at least 1 of each"
            )
        self._peers = [_Peer(name=shard) if isinstance(shard, str) else _Peer(target=shard) for shard in shards]
        self.spec = spec
        self.batch_windows = batch_windows
        self.part_windows = math.ceil(batch_windows / len(shards))
        self.prefetch = prefetch
        self.sample_timeout_s = sample_timeout_s
        self.retry_s = retry_s
        self.namespace = namespace
        self.stall_s = 0.0
        self.faults = 0
        self._parts: deque[SampleReply] = deque()
        self._pending_stall_s = 0.0

    @property
    def buffered(self) -> int:
        """Windows that have arrived and were not handed on yet."""
        return sum(part.batch.size for part in self._parts)

    @property
    def down(self) -> list[int]:
        """Shards that failed and are waiting for their next try."""
        now = time.monotonic()
        return [index for index, peer in enumerate(self._peers) if peer.retry_at > now]

    def next_batch(self, timeout_s: float = 10.0) -> tuple[Batch, BatchInfo] | None:
        """The next B windows, in fresh writable arrays; None if `timeout_s` seconds did not bring them.

        None loses nothing: what has arrived is kept for the next call. With a bound on reuse and slow producers
        waiting is right; use None to look for a stop.

        Raises:
            ValueError: if a shard cuts other windows than `spec`.
            ray.exceptions.RayTaskError: for an error inside a shard that is not its death.
        """
        began = time.monotonic()
        self._ask()
        self._collect(0.0)
        while self.buffered < self.batch_windows:
            left = began + timeout_s - time.monotonic()
            if left <= 0:
                break
            self._ask()
            self._collect(min(left, self.retry_s))
        waited = time.monotonic() - began
        self.stall_s += waited
        self._pending_stall_s += waited
        if self.buffered < self.batch_windows:
            return None
        joined = self._join()
        self._ask()
        return joined

    def batches(self, should_stop: Callable[[], bool], poll_s: float = 1.0) -> Iterator[tuple[Batch, BatchInfo]]:
        """Batches until `should_stop()`, which is asked before each one and every `poll_s` seconds of waiting."""
        while not should_stop():
            item = self.next_batch(poll_s)
            if item is not None:
                yield item

    def _ask(self) -> None:
        now, buffered = time.monotonic(), self.buffered
        for peer in self._peers:
            if peer.retry_at > now or (peer.target is None and not self._find(peer)):
                continue
            while len(peer.refs) < self.prefetch and (
                buffered + len(peer.refs) * self.part_windows < self.prefetch * self.batch_windows
            ):
                peer.refs.add(peer.target.sample.remote(self.part_windows, self.sample_timeout_s))

    def _find(self, peer: _Peer) -> bool:
        try:
            peer.target = ray.get_actor(peer.name, namespace=self.namespace)
        except ValueError:  # Ray's word for "no actor of that name (yet)"
            self._fail(peer)
            return False
        return True

    def _collect(self, timeout_s: float) -> None:
        owners = {ref: peer for peer in self._peers for ref in peer.refs}
        if not owners:
            time.sleep(timeout_s)
            return
        if timeout_s > 0:
            ray.wait(list(owners), num_returns=1, timeout=timeout_s)
        ready, _ = ray.wait(list(owners), num_returns=len(owners), timeout=0)
        for ref in ready:
            peer = owners[ref]
            peer.refs.discard(ref)
            try:
                reply = ray.get(ref)
            except (RayActorError, ObjectLostError):
                self._fail(peer)
                continue
            if reply is not None:
                self._check(peer, reply.batch)
                self._parts.append(reply)

    def _fail(self, peer: _Peer) -> None:
        now = time.monotonic()
        if peer.retry_at <= now:
            self.faults += 1
        peer.retry_at = now + self.retry_s
        if peer.name:
            peer.target = None

    def _check(self, peer: _Peer, batch: Batch) -> None:
        if peer.checked:
            return
        expected = (self.spec.burn_in + self.spec.frames, self.spec.chunk)
        if batch.action.shape[1:3] != expected or batch.previous_action.shape[2] != self.spec.tau:
            raise ValueError(
                f"replay shard cuts windows of [frames, chunk]={list(batch.action.shape[1:3])} with tau="
                f"{batch.previous_action.shape[2]}: expected {list(expected)} with tau={self.spec.tau}"
            )
        peer.checked = True

    def _join(self) -> tuple[Batch, BatchInfo]:
        taken: list[SampleReply] = []
        missing = self.batch_windows
        while missing:
            part = self._parts.popleft()
            if part.batch.size > missing:
                self._parts.appendleft(_cut_reply(part, missing, part.batch.size))
                part = _cut_reply(part, 0, missing)
            taken.append(part)
            missing -= part.batch.size
        batch = concatenate([part.batch for part in taken])
        info = BatchInfo(
            fresh_pairs=int(sum(part.fresh.sum() for part in taken)),
            uses=batch.pair_uses,
            context_reads=int(sum(part.context.sum() for part in taken)),
            age_mean_s=float(time.time() - np.mean(batch.inserted_at)),
            stall_s=self._pending_stall_s,
            parts=len(taken),
        )
        self._pending_stall_s = 0.0
        return batch, info


def _cut_reply(reply: SampleReply, start: int, stop: int) -> SampleReply:
    return SampleReply(
        batch=cut(reply.batch, start, stop), fresh=reply.fresh[start:stop], context=reply.context[start:stop]
    )
