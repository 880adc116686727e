"""The shard's end of the shared-memory path. Takes requests over local sockets, gathers windows into the asker's ring.

A consumer that connects gets a thread and a ring of its own. The connection is the lease: it names a slot that is
free, the shard alone writes there until it answers, and from the answer on the slot is the consumer's until it names
it again. When either process dies the kernel closes the connection and frees the ring; nothing has to time out.
A consumer that hangs keeps its few slots and holds up nobody else.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle

from embodichain.replay.gather import batch_fields
from embodichain.replay.ring import Ring, RingLayout
from embodichain.replay.store import ShardStore

COUNTS = {"fresh": ("i8", ()), "context": ("i8", ())}  # what a slot holds beside a `Batch`


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a shard serves its own node: Ray's id of that node, the socket's name there, and the key to be let in."""

    node_id: str
    address: str
    key: str

    def connect(self) -> Connection:
        """A connection on which nothing was said yet. Raises `OSError` if nobody serves there."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(self.address)
            return Connection(client.detach())


class SlotServer:
    """Serves one store to the consumers of its node.

    The socket is in Linux's abstract namespace: no file that could be left behind, and not to be seen from another
    network namespace. Who does not know the key is turned away.
    """

    def __init__(self, store: ShardStore, node_id: str = "") -> None:
        self._store = store
        address = f"\0embodichain-replay-{secrets.token_hex(8)}"
        self.endpoint = Endpoint(node_id=node_id, address=address, key=secrets.token_hex(16))
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(address)
        self._listener.listen(64)
        self._consumers: set[Connection] = set()
        threading.Thread(target=self._accept, name="replay-accept", daemon=True).start()

    @property
    def consumers(self) -> int:
        """Connections that are open."""
        return len(self._consumers)

    def close(self) -> None:
        """Take no more consumers and let those connected go."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`, which `close` alone does not
        self._listener.close()
        for connection in list(self._consumers):
            with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as held:
                held.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                consumer, _ = self._listener.accept()
            except OSError:
                return  # closed
            arguments = (Connection(consumer.detach()),)
            threading.Thread(target=self._serve, args=arguments, name="replay-serve", daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        self._consumers.add(connection)
        try:
            hello = json.loads(connection.recv_bytes())
            if secrets.compare_digest(hello["key"], self.endpoint.key):
                self._answer(connection, slots=hello["slots"], windows=hello["windows"])
        except (EOFError, OSError):
            pass  # the consumer is gone, and with this frame its ring
        except Exception as error:
            with suppress(OSError):
                connection.send_bytes(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
            raise
        finally:
            self._consumers.discard(connection)
            connection.close()

    def _answer(self, connection: Connection, *, slots: int, windows: int) -> None:
        ring: Ring | None = None
        while True:
            request = json.loads(connection.recv_bytes())
            slot = request["slot"]
            if not self._store.wait_sample(request["timeout_s"]):
                connection.send_bytes(json.dumps({"slot": slot, "rows": 0}).encode())
                continue
            if ring is None:
                ring = self._offer(connection, slots, windows)
            reply = self._fill(ring, slot, request["windows"])
            connection.send_bytes(json.dumps({"slot": slot, **reply}).encode())

    def _offer(self, connection: Connection, slots: int, windows: int) -> Ring:
        """Make the ring and hand it over; only now, since its size depends on what the shard holds."""
        schema = self._store.schema
        assert schema is not None, "a shard that can be sampled has a schema"
        fields = batch_fields(self._store.window, schema.tokens, schema.proprio) | COUNTS
        layout = RingLayout(generation=secrets.randbits(63), slots=slots, windows=windows, fields=fields)
        ring, fd = Ring.create(layout)
        try:
            connection.send_bytes(json.dumps({"ring": layout.to_dict()}).encode())
            send_handle(connection, fd, os.getpid())
        finally:
            os.close(fd)
        return ring

    def _fill(self, ring: Ring, slot: int, windows: int) -> dict[str, object]:
        arrays = ring.arrays(slot)
        out = {name: array for name, array in arrays.items() if name not in COUNTS}
        ring.begin(slot)
        try:
            reply = self._store.sample(windows, out=out)
            rows = 0 if reply is None else reply.batch.size
            if reply is not None:
                arrays["fresh"][:rows], arrays["context"][:rows] = reply.fresh, reply.context
        finally:
            sequence = ring.commit(slot)
        if reply is None:
            return {"rows": 0}
        strings = {"instruction": reply.batch.instruction, "recipe_id": reply.batch.recipe_id}
        return {"rows": rows, "sequence": sequence, **strings}
