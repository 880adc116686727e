"""How a client reaches one shard: through memory that both share, over TCP, or through Ray. Owns: requests in flight.

All links take requests and hand on parts of batches as they arrive; `ReplayClient` chooses and joins.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.reduction import recv_handle
from typing import Any, Protocol

import numpy as np
import ray
from ray.exceptions import ObjectLostError, RayActorError

from embodichain.contracts import Batch
from embodichain.replay.ring import Ring, RingLayout
from embodichain.replay.serving import COUNTS, SILENCE_S, Endpoint, receive
from embodichain.replay.store import SampleReply


class LinkLostError(Exception):
    """The shard at the other end died, or is being restarted."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Windows that arrived. Copy them, then ask `intact()`: False means that they changed meanwhile.

    The memory may be the shard's again once the next part is asked for, unless it was adopted: `adopt()` gives the
    arrays with the room behind the part's windows, which are then the caller's until it drops them; None if there is
    no memory to give away.
    """

    reply: SampleReply
    intact: Callable[[], bool]
    adopt: Callable[[], dict[str, np.ndarray] | None] = lambda: None


class Link(Protocol):
    """One shard, reachable; `kind` is `shared`, `tcp` or `ray`."""

    kind: str

    @property
    def in_flight(self) -> int:
        """Requests that were not answered yet."""
        ...

    def ask(self, windows: int, timeout_s: float) -> None:
        """Send a request. Raises `LinkLostError`."""
        ...

    def arrived(self) -> Iterator[Part]:
        """What has arrived, without waiting. Raises `LinkLostError`, and whatever the shard raised."""
        ...

    def close(self) -> None:
        """Give up what is in flight."""
        ...


class RayLink:
    """Requests as actor calls: for a shard on another node. Replies travel through Ray's object store."""

    kind = "ray"

    def __init__(self, target: Any) -> None:
        self._target = target
        self.refs: set[Any] = set()

    @property
    def in_flight(self) -> int:
        """Requests that were not answered yet."""
        return len(self.refs)

    def ask(self, windows: int, timeout_s: float) -> None:
        """Send a request."""
        self.refs.add(self._target.sample.remote(windows, timeout_s))

    def arrived(self) -> Iterator[Part]:
        """What has arrived, without waiting."""
        ready = ray.wait(list(self.refs), num_returns=len(self.refs), timeout=0)[0] if self.refs else []
        for ref in ready:
            self.refs.discard(ref)
            try:
                reply = ray.get(ref)
            except (RayActorError, ObjectLostError) as error:
                raise LinkLostError(str(error)) from error
            if reply is not None:
                yield Part(reply=reply, intact=lambda: True)

    def close(self) -> None:
        """Forget what is in flight."""
        self.refs.clear()


class SharedLink:
    """Requests over a local socket, windows through a ring: for a shard on this node.

    Args:
        endpoint: of the shard.
        windows: room of a slot, and the most that one request asks for.
        slots: the most requests in flight.
        spare: slots beyond these, that parts may be adopted in.

    Raises:
        LinkLostError: if nobody serves there.
    """

    kind = "shared"
    _remote = False

    def __init__(self, endpoint: Endpoint, windows: int, slots: int, spare: int = 0) -> None:
        try:
            self.connection = endpoint.connect(remote=self._remote)
            endpoint.greet(self.connection, slots=slots + spare, windows=windows)
        except (OSError, EOFError) as error:
            raise LinkLostError(str(error)) from error
        self._ring: Ring | None = None
        self._slots = slots
        self._asked: dict[int, float] = {}  # slot -> when it should have been answered by
        self._adopted: set[int] = set()
        self._free = deque(range(slots + spare))  # appended to by whatever thread drops an adopted batch

    @property
    def in_flight(self) -> int:
        """Requests that were not answered yet."""
        return len(self._asked)

    def ask(self, windows: int, timeout_s: float) -> None:
        """Hand a free slot to the shard, to be filled."""
        slot = self._free.pop()  # the last one freed: its pages are still in the cache
        self._asked[slot] = time.monotonic() + timeout_s + SILENCE_S
        request = {"slot": slot, "windows": windows, "timeout_s": timeout_s}
        try:
            self.connection.send_bytes(json.dumps(request).encode())
        except OSError as error:
            raise LinkLostError(str(error)) from error

    def arrived(self) -> Iterator[Part]:
        """What has arrived, without waiting; a slot is free again when the next part is taken."""
        try:
            while self.connection.poll():
                answer = json.loads(self.connection.recv_bytes())
                if "ring" in answer:
                    self._ring = self._open(RingLayout.from_dict(answer["ring"]))
                    continue
                if "error" in answer:
                    raise RuntimeError(f"replay shard: {answer['error']}")
                slot = answer["slot"]
                if answer["rows"]:
                    yield self._part(answer)
                del self._asked[slot]
                if slot in self._adopted:
                    self._adopted.remove(slot)
                else:
                    self._free.append(slot)
        except (OSError, EOFError) as error:
            raise LinkLostError(str(error)) from error

    def _open(self, layout: RingLayout) -> Ring:
        return Ring(recv_handle(self.connection), layout)

    def _part(self, answer: dict[str, Any]) -> Part:
        ring, slot, rows = self._ring, answer["slot"], answer["rows"]
        assert ring is not None, "the ring is offered before its first slot is filled"
        arrays: dict[str, np.ndarray] = {name: array[:rows] for name, array in ring.arrays(slot).items()}
        counts = {name: arrays.pop(name) for name in COUNTS}
        batch = Batch(**arrays, instruction=answer["instruction"], recipe_id=answer["recipe_id"])
        return Part(
            reply=SampleReply(batch=batch, **counts),
            intact=lambda: ring.intact(slot, answer["sequence"]),
            adopt=lambda: self._adopt(ring, slot),
        )

    def _adopt(self, ring: Ring, slot: int) -> dict[str, np.ndarray] | None:
        if len(self._free) + len(self._asked) <= self._slots:
            return None  # the others are needed for requests: whoever keeps many batches gets copies
        self._adopted.add(slot)
        arrays = ring.view(slot, lambda free=self._free: free.append(slot))  # type: ignore[misc]
        return {name: array for name, array in arrays.items() if name not in COUNTS}

    def close(self) -> None:
        """Let the shard free the ring."""
        self.connection.close()


class TcpLink(SharedLink):
    """The same over TCP, for a shard on another node: the ring is this process's alone, and slots are sent.

    A shard that owes an answer and is silent for `SILENCE_S` counts as lost; it may be cut off and never say so.
    """

    kind = "tcp"
    _remote = True

    def arrived(self) -> Iterator[Part]:
        """What has arrived; waits for the rest of a slot that has begun to."""
        yield from super().arrived()
        if self._asked and min(self._asked.values()) < time.monotonic():
            raise LinkLostError(f"no answer for {SILENCE_S:g} s")

    def _open(self, layout: RingLayout) -> Ring:
        ring, fd = Ring.create(replace(layout, slots=len(self._free) + len(self._asked) + len(self._adopted)))
        os.close(fd)
        return ring

    def _part(self, answer: dict[str, Any]) -> Part:
        assert self._ring is not None, "the ring is offered before its first slot is filled"
        sequence = receive(self.connection, self._ring, answer["slot"], answer["rows"])
        return super()._part({**answer, "sequence": sequence})
