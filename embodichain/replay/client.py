"""The learner's end of the replay. Takes shards, hands on full batches; owns whom it asks, and doing without a shard.

Requests are in flight at every shard at once, so shards gather while the learner computes. With up to `_AHEAD` shards
each is asked for whole batches, which then need no copy here and cost no more requests than with one shard; with more,
for such a part that about `_AHEAD` batches are under way. Parts are joined in the order of their arrival: a
shard that is dead, restarting or short of data is made up for by the others. What a shard had debited for a request
that was lost with it stays debited.

A shard on the client's node is reached through shared memory, any other over TCP, or through Ray where that does not
get through (`replay.links`).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import ray
from ray.exceptions import RayActorError

from embodichain.contracts import Batch, WindowSpec
from embodichain.replay.assembly import Allocate, Assembly, BatchInfo
from embodichain.replay.config import TRANSPORTS
from embodichain.replay.links import Link, LinkLostError, Part, RayLink, SharedLink, TcpLink
from embodichain.replay.serving import Endpoint

_SPARE_SLOTS = 4  # batches that may lie in rings after they were handed on: in use, prepared, waiting
_AHEAD = 4  # batches under way, unless `prefetch` is more; each shard is asked for its part of them
_SLICE_S = 0.001  # where some shards answer by socket and others through Ray, each side is looked at this often


@dataclass(kw_only=True)
class _Peer:
    """One shard as the client sees it: `lookup` is the question where it serves, `link` how it is reached."""

    target: Any = None
    name: str = ""
    lookup: Any = None
    link: Link | None = None
    retry_at: float = 0.0
    checked: bool = False


def request_size(shards: int, batch_windows: int, prefetch: int = 2) -> tuple[int, int]:
    """How many requests are in flight at each shard, and how many windows one asks for."""
    ahead = max(prefetch, min(shards, _AHEAD))
    requests = math.ceil(ahead / shards)
    return requests, math.ceil(batch_windows * ahead / (shards * requests))


class ReplayClient:
    """Pulls batches from all shards. One per learner process; not thread-safe.

    Args:
        shards: actor handles, or names (then looked up again whenever the actor is gone).
        spec: the windows that the shards cut; a shard that cuts others is refused at its first reply.
        batch_windows: B.
        prefetch: batches to have ready before no more are asked for, >= 1.
        sample_timeout_s: how long a request may wait inside a shard.
        retry_s: pause before a shard that failed is asked again.
        namespace: Ray namespace of names.
        transport: `auto`, `shared`, `tcp` or `ray`, as in `ReplayConfig.transport`.
        allocate: makes a batch's arrays, given shape and dtype; pinned ones, say. None: whatever costs least.
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
        transport: str = "auto",
        allocate: Allocate | None = None,
    ) -> None:
        if not shards or batch_windows < 1 or prefetch < 1:
            raise ValueError(
                f"{len(shards)} shards, batch_windows={batch_windows}, prefetch={prefetch}: expected at least 1 of each"
            )
        if transport not in TRANSPORTS:
            raise ValueError(f"transport={transport!r}: expected one of {', '.join(TRANSPORTS)}")
        self._peers = [_Peer(name=shard) if isinstance(shard, str) else _Peer(target=shard) for shard in shards]
        self.spec = spec
        self.batch_windows = batch_windows
        self.prefetch = prefetch
        self.requests, self.part_windows = request_size(len(shards), batch_windows, prefetch)
        self.sample_timeout_s = sample_timeout_s
        self.retry_s = retry_s
        self.namespace = namespace
        self.transport = transport
        self.stall_s = 0.0
        self.faults = 0
        self.overwritten = 0
        self._allocate = allocate
        self._ready: deque[Assembly] = deque()
        self._current = Assembly(batch_windows, allocate)
        self._pending_stall_s = 0.0
        adopts = allocate is None and self.part_windows == batch_windows
        self._spare = math.ceil(_SPARE_SLOTS / len(shards)) if adopts else 0

    @property
    def buffered(self) -> int:
        """Windows that have arrived and were not handed on yet."""
        return len(self._ready) * self.batch_windows + self._current.rows

    @property
    def waiting(self) -> list[Batch]:
        """Those windows; the last batch may not be full."""
        return [item.batch() for item in (*self._ready, self._current) if item.rows]

    @property
    def down(self) -> list[int]:
        """Shards that failed and are waiting for their next try."""
        now = time.monotonic()
        return [index for index, peer in enumerate(self._peers) if peer.retry_at > now]

    @property
    def transports(self) -> list[str]:
        """How each shard is reached: `shared`, `tcp`, `ray`, or nothing yet."""
        return [peer.link.kind if peer.link is not None else "" for peer in self._peers]

    def next_batch(self, timeout_s: float = 10.0) -> tuple[Batch, BatchInfo] | None:
        """The next B windows, in writable arrays that are the caller's; None if `timeout_s` seconds did not bring them.

        None loses nothing: what has arrived is kept for the next call. With a bound on reuse and slow producers
        waiting is right; use None to look for a stop.

        Raises:
            ValueError: if a shard cuts other windows than `spec`, or lies on another node and `transport` is `shared`.
            RuntimeError, ray.exceptions.RayTaskError: for an error inside a shard that is not its death.
        """
        began = time.monotonic()
        self._ask()
        self._collect(0.0)
        while not self._ready:
            left = began + timeout_s - time.monotonic()
            if left <= 0:
                break
            self._ask()
            self._collect(min(left, self.retry_s))
        waited = time.monotonic() - began
        self.stall_s += waited
        self._pending_stall_s += waited
        if not self._ready:
            return None
        if not self._ready[0].intact():  # only if somebody broke the protocol: nobody else writes to an adopted slot
            self.overwritten += self._ready.popleft().parts
            return None
        joined = self._ready.popleft().finish(self._pending_stall_s)
        self._pending_stall_s = 0.0
        self._ask()
        return joined

    def batches(self, should_stop: Callable[[], bool], poll_s: float = 1.0) -> Iterator[tuple[Batch, BatchInfo]]:
        """Batches until `should_stop()`, which is asked before each one and every `poll_s` seconds of waiting."""
        while not should_stop():
            item = self.next_batch(poll_s)
            if item is not None:
                yield item

    def close(self) -> None:
        """Let the shards free what they hold for this client; it can be used again."""
        for peer in self._peers:
            if peer.link is not None:
                peer.link.close()
                peer.link = None

    def _ask(self) -> None:
        now = time.monotonic()
        for peer in self._peers:
            if peer.retry_at > now or (peer.target is None and not self._find(peer)):
                continue
            link = peer.link or self._reach(peer)
            try:
                while link is not None and link.in_flight < self.requests and len(self._ready) < self.prefetch:
                    link.ask(self.part_windows, self.sample_timeout_s)
            except LinkLostError:
                self._fail(peer)

    def _find(self, peer: _Peer) -> bool:
        try:
            peer.target = ray.get_actor(peer.name, namespace=self.namespace)
        except ValueError:  # Ray's word for "no actor of that name (yet)"
            self._fail(peer)
            return False
        return True

    def _reach(self, peer: _Peer) -> Link | None:
        """A new link to a shard, or None while it is not known yet where the shard is."""
        if self.transport == "ray":
            peer.link = RayLink(peer.target)
        elif peer.lookup is None:
            peer.lookup = peer.target.endpoint.remote()
        elif ray.wait([peer.lookup], timeout=0)[0]:
            answer, peer.lookup = peer.lookup, None
            try:
                peer.link = self._choose(ray.get(answer), peer.target)
            except (RayActorError, LinkLostError):
                self._fail(peer)
        return peer.link

    def _choose(self, endpoint: Endpoint, target: Any) -> Link:
        here = endpoint.node_id == ray.get_runtime_context().get_node_id()
        if here and self.transport != "tcp":
            return SharedLink(endpoint, self.part_windows, self.requests, self._spare)
        if self.transport == "shared":
            raise ValueError(
                "replay.transport=shared: a shard is on another node than its learner; expected all of them on one "
                "node, or replay.transport=auto"
            )
        try:
            if endpoint.port:
                return TcpLink(endpoint, self.part_windows, self.requests, self._spare)
        except LinkLostError:  # it has just answered through Ray: something between the nodes lets TCP not through
            if self.transport == "tcp":
                raise
        if self.transport == "tcp":
            raise ValueError(
                "replay.transport=tcp: a shard does not listen (RAY_USE_TLS, or no address); expected "
                "replay.transport=auto"
            )
        return RayLink(target)

    def _collect(self, timeout_s: float) -> None:
        self._wait(timeout_s)
        for peer in self._peers:
            if peer.link is None:
                continue
            try:
                for part in peer.link.arrived():
                    self._check(peer, part.reply.batch)
                    self._add(part)
            except LinkLostError:
                self._fail(peer)

    def _wait(self, timeout_s: float) -> None:
        """Until something arrived, or `timeout_s` seconds."""
        links = [peer.link for peer in self._peers if peer.link is not None]
        sockets = [link.connection for link in links if isinstance(link, SharedLink)]  # a `TcpLink` is one too
        refs = [ref for link in links if isinstance(link, RayLink) for ref in link.refs]
        refs += [peer.lookup for peer in self._peers if peer.lookup is not None]
        if not sockets and not refs:
            time.sleep(timeout_s)
        elif not refs:
            wait(sockets, timeout_s)
        elif not sockets:
            ray.wait(refs, num_returns=1, timeout=timeout_s)
        else:
            until = time.monotonic() + timeout_s
            while not wait(sockets, 0) and not ray.wait(refs, timeout=_SLICE_S)[0] and time.monotonic() < until:
                pass

    def _fail(self, peer: _Peer) -> None:
        now = time.monotonic()
        if peer.retry_at <= now:
            self.faults += 1
        peer.retry_at = now + self.retry_s
        if peer.link is not None:
            peer.link.close()
        peer.link = peer.lookup = None
        if peer.name:
            peer.target = None

    def _check(self, peer: _Peer, batch: Batch) -> None:
        if peer.checked:
            return
        expected = (self.spec.seen, self.spec.chunk)
        if batch.action.shape[1:3] != expected or batch.previous_action.shape[2] != self.spec.tau:
            raise ValueError(
                f"replay shard cuts windows of [frames, chunk]={list(batch.action.shape[1:3])} with tau="
                f"{batch.previous_action.shape[2]}: expected {list(expected)} with tau={self.spec.tau}"
            )
        peer.checked = True

    def _add(self, part: Part) -> None:
        """Copy a part behind what is there; windows that changed while they were copied do not count."""
        size, current = part.reply.batch.size, self._current
        first = min(size, current.missing)
        current.place(part, 0, first)
        following = Assembly(self.batch_windows, self._allocate) if first == current.missing else current
        if first < size:
            following.place(part, first, size)
        if not part.intact():
            self.overwritten += 1
            if current.rows == 0:
                self._current = Assembly(self.batch_windows, self._allocate)
            return
        current.keep(part.reply, 0, first)
        if first < size:
            following.keep(part.reply, first, size)
        if following is not current:
            self._ready.append(current)
            self._current = following
