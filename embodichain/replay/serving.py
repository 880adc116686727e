"""A shard's end of a consumer's connection. Takes requests, gathers windows into slots, and hands these over.

A consumer on the shard's node connects to a local socket and shares a ring of slots with it: the shard gathers straight
into the slot that the consumer named, and answers with a line. A consumer on another node connects over TCP and gets
the slot's bytes behind the same line. Each has a thread and a ring of its own. The connection is the lease of a
slot: the shard alone writes there until it answers, and from the answer on the slot is the consumer's until it names
it again. When either process dies the kernel closes the connection and frees the ring; nothing has to time out. A
consumer that hangs keeps its few slots and holds up nobody else.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle

from embodichain.replay.gather import batch_fields
from embodichain.replay.ring import Ring, RingLayout
from embodichain.replay.store import ShardStore

COUNTS = {"fresh": ("i8", ()), "context": ("i8", ())}  # what a slot holds beside a `Batch`
CONNECT_S = 3.0  # to reach another node's shard, before Ray is taken instead
_HELLO_BYTES = 4096  # more than a consumer has to say before it is let in
SILENCE_S = 15.0  # of a connection between nodes in which something is due; then the other end counts as gone


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a shard serves, and the key to be let in.

    Attributes:
        node_id: Ray's id of its node.
        address: name of the socket for that node.
        key: hexadecimal.
        host: for other nodes; empty if they are to use Ray.
        port: likewise; 0 then.
    """

    node_id: str
    address: str
    key: str
    host: str = ""
    port: int = 0

    def connect(self, *, remote: bool = False) -> Connection:
        """A connection on which nothing was said yet. Raises `OSError` if nobody serves there."""
        if not remote:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.connect(self.address)
                return Connection(client.detach())
        with socket.create_connection((self.host, self.port), CONNECT_S) as client:
            client.settimeout(None)
            _patient(client, socket.SO_RCVTIMEO)
            return Connection(client.detach())

    def greet(self, connection: Connection, *, slots: int, windows: int) -> None:
        """The consumer's first words: that it knows the key, and the ring it wants."""
        proof = prove(self.key, connection.recv_bytes())
        connection.send_bytes(json.dumps({"proof": proof, "slots": slots, "windows": windows}).encode())


def prove(key: str, challenge: bytes) -> str:
    """What only somebody who knows the key can answer; the key itself does not travel."""
    return hmac.new(bytes.fromhex(key), challenge, "sha256").hexdigest()


class SlotServer:
    """Serves one store to consumers.

    The local socket is in Linux's abstract namespace: no file that could be left behind, and not to be seen from
    another network namespace. Who does not know the key is turned away.

    Args:
        store: what windows come from.
        node_id: Ray's id of this node.
        host: address of this node for others, on which to listen for them too; empty: only this node is served.
    """

    def __init__(self, store: ShardStore, node_id: str = "", host: str = "") -> None:
        self._store = store
        address = f"\0embodichain-replay-{secrets.token_hex(8)}"
        self.endpoint = Endpoint(node_id=node_id, address=address, key=secrets.token_hex(16))
        self._listeners = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)]
        self._listeners[0].bind(address)
        if host:
            with suppress(OSError):  # an address that is not ours to listen on: they come through Ray
                self._listeners.append(socket.create_server((host, 0)))
                self.endpoint = replace(self.endpoint, host=host, port=self._listeners[1].getsockname()[1])
        self._consumers: set[Connection] = set()
        for listener in self._listeners:
            listener.listen(64)
            threading.Thread(target=self._accept, args=(listener,), name="replay-accept", daemon=True).start()

    @property
    def consumers(self) -> int:
        """Connections that are open."""
        return len(self._consumers)

    def close(self) -> None:
        """Take no more consumers and let those connected go."""
        for listener in self._listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`, which `close` alone does not
            listener.close()
        for connection in list(self._consumers):
            with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as held:
                held.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                consumer, _ = listener.accept()
            except OSError:
                return  # closed
            remote = listener.family != socket.AF_UNIX
            if remote:
                consumer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                consumer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                consumer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * SILENCE_S))
                _patient(consumer, socket.SO_SNDTIMEO)
            arguments = (Connection(consumer.detach()), remote)
            threading.Thread(target=self._serve, args=arguments, name="replay-serve", daemon=True).start()

    def _serve(self, connection: Connection, remote: bool) -> None:
        self._consumers.add(connection)
        try:
            challenge = secrets.token_bytes(32)
            connection.send_bytes(challenge)
            hello = json.loads(connection.recv_bytes(_HELLO_BYTES))
            if hmac.compare_digest(hello["proof"], prove(self.endpoint.key, challenge)):
                self._answer(connection, slots=hello["slots"], windows=hello["windows"], remote=remote)
        except (EOFError, OSError):
            pass  # the consumer is gone, and with this frame its ring
        except Exception as error:
            with suppress(OSError):
                connection.send_bytes(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
            raise
        finally:
            self._consumers.discard(connection)
            connection.close()

    def _answer(self, connection: Connection, *, slots: int, windows: int, remote: bool) -> None:
        ring: Ring | None = None
        while True:
            request = json.loads(connection.recv_bytes())
            slot = request["slot"]
            if not self._store.wait_sample(request["timeout_s"]):
                connection.send_bytes(json.dumps({"slot": slot, "rows": 0}).encode())
                continue
            if ring is None:
                ring = self._offer(connection, 1 if remote else slots, windows, remote)
            here = 0 if remote else slot
            reply = self._fill(ring, here, request["windows"])
            connection.send_bytes(json.dumps({"slot": slot, **reply}).encode())
            if remote:
                _send(connection, ring, here, int(str(reply["rows"])))

    def _offer(self, connection: Connection, slots: int, windows: int, remote: bool) -> Ring:
        """Make the ring and tell of it, or hand it over; only now, since its size depends on what the shard holds."""
        schema = self._store.schema
        assert schema is not None, "a shard that can be sampled has a schema"
        fields = batch_fields(self._store.window, schema.tokens, schema.proprio) | COUNTS
        layout = RingLayout(generation=secrets.randbits(63), slots=slots, windows=windows, fields=fields)
        ring, fd = Ring.create(layout)
        try:
            connection.send_bytes(json.dumps({"ring": layout.to_dict()}).encode())
            if not remote:
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


def _patient(end: socket.socket, side: int) -> None:
    """Let a read or a write (`SO_RCVTIMEO`, `SO_SNDTIMEO`) fail once the other end was silent for `SILENCE_S`."""
    end.setsockopt(socket.SOL_SOCKET, side, struct.pack("ll", int(SILENCE_S), 0))


def _send(connection: Connection, ring: Ring, slot: int, rows: int) -> None:
    """The first rows of every array of a slot, one behind the other."""
    with socket.socket(fileno=os.dup(connection.fileno())) as out:
        for array in ring.arrays(slot).values():
            out.sendall(array[:rows].data.cast("B"))


def receive(connection: Connection, ring: Ring, slot: int, rows: int) -> int:
    """The other end of `_send`; returns the slot's sequence number. Raises `EOFError` or `OSError` if it breaks off."""
    ring.begin(slot)
    with socket.socket(fileno=os.dup(connection.fileno())) as source:
        for array in ring.arrays(slot).values():
            rest = array[:rows].data.cast("B")
            while rest:
                size = source.recv_into(rest, flags=socket.MSG_WAITALL)
                if not size:
                    raise EOFError("the shard closed the connection within a slot")
                rest = rest[size:]
    return ring.commit(slot)
