"""The policy server: websockets and two HTTP pages on one port, computation in one thread beside the event loop.

Takes a `PolicyInfo` and a function that makes a policy per session; answers messages of `protocol`. Whatever a client
sends or does ends in an error message to that client, or in its connection; the server and the other clients go on.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from embodichain.contracts import Policy, Speculator
from embodichain.serving import protocol
from embodichain.serving.observation import from_wire
from embodichain.serving.protocol import PolicyInfo, ProtocolError
from embodichain.serving.sessions import Session, Sessions

RECENT = 1000  # answers behind the percentiles of /timing
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Where a server listens, and its bounds.

    Attributes:
        host, port: port 0 takes a free one.
        token: demanded as `Authorization: Bearer TOKEN`; empty: none, possible on the loopback interface only.
        max_sessions: sessions at once, over all connections.
        session_idle_s: a session ends after so long without a message.
        max_message_bytes: a connection that sends a larger message is closed.
        ping_s: seconds after which a client that answers no ping is given up.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str = ""
    max_sessions: int = 32
    session_idle_s: float = 300.0
    max_message_bytes: int = protocol.MAX_MESSAGE_BYTES
    ping_s: float = 20.0

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not self.token:
            raise ValueError(
                f"host={self.host}: reachable from other machines, which needs a token; expected one, or 127.0.0.1"
            )


class PolicyServer:
    """Serves one policy to several clients.

    Args:
        info: what is said of the policy.
        make_policy: a policy for one session; sessions never share a memory.
        config: where and how much.
    """

    def __init__(self, info: PolicyInfo, make_policy: Callable[[], Policy], config: ServerConfig | None = None) -> None:
        self.info, self.config = info, config or ServerConfig()
        self._make_policy = make_policy
        self._sessions = Sessions(most=self.config.max_sessions, idle_s=self.config.session_idle_s)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy")
        self._started = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._times: dict[str, deque[tuple[float, float]]] = {}
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """Where clients connect; known once it runs."""
        assert self._server is not None
        port = next(iter(self._server.sockets)).getsockname()[1]
        host = self.config.host
        return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"

    async def run(self, started: Callable[[], None] = lambda: None, stop: asyncio.Event | None = None) -> None:
        """Serve until `stop` is set, or for ever. Raises `OSError` if the port cannot be had."""
        settings = self.config
        async with serve(
            self._client,
            settings.host,
            settings.port,
            process_request=self._http,
            origins=[None],  # no pages of a browser
            max_size=settings.max_message_bytes,
            ping_interval=settings.ping_s,
            ping_timeout=settings.ping_s,
            compression=None,
        ) as self._server:
            started()
            await (stop or asyncio.Event()).wait()
        self._thread.shutdown(wait=False, cancel_futures=True)

    # ---------------------------------------------------------------- HTTP

    def _http(self, connection: ServerConnection, request: Request) -> Response | None:
        """Pages, and who may open a websocket; None goes on with that."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return self._page(connection, self.health())
        if not self._may_enter(request):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN\n")
        if path == "/timing":
            return self._page(connection, self.timing())
        if path != "/":
            return connection.respond(HTTPStatus.NOT_FOUND, "expected /, /healthz or /timing\n")
        return None

    def _may_enter(self, request: Request) -> bool:
        if not self.config.token:
            return True
        given = request.headers.get_all("Authorization")
        return len(given) == 1 and hmac.compare_digest(given[0].encode(), f"Bearer {self.config.token}".encode())

    @staticmethod
    def _page(connection: ServerConnection, content: dict[str, Any]) -> Response:
        response = connection.respond(HTTPStatus.OK, json.dumps(content) + "\n")
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        return response

    def health(self) -> dict[str, Any]:
        """What `/healthz` says."""
        return {
            "status": "ok",
            "protocol": protocol.VERSION,
            "sessions": len(self._sessions),
            "max_sessions": self._sessions.most,
            "uptime_s": round(time.monotonic() - self._started, 1),
        }

    def timing(self) -> dict[str, Any]:
        """What `/timing` says: counts, and milliseconds of the last answers, waiting their turn and computing."""
        rows = {}
        for name, times in self._times.items():
            wait, compute = np.array(times).T * 1000.0
            rows[name] = {
                "n": self._counts[name],
                **{f"compute_ms_p{q}": round(float(np.percentile(compute, q)), 3) for q in (50, 95)},
                **{f"wait_ms_p{q}": round(float(np.percentile(wait, q)), 3) for q in (50, 95)},
            }
        errors = {n.removeprefix("error:"): count for n, count in self._counts.items() if n.startswith("error:")}
        return {"policy": self.info.name, "answers": rows, "errors": errors, "timed_out": self._sessions.timed_out}

    # ---------------------------------------------------------------- websockets

    async def _client(self, connection: ServerConnection) -> None:
        """One connection from its hello to its end; its sessions end with it."""
        owned: set[str] = set()
        try:
            await connection.send(protocol.pack(self.info.to_message()))
            async for data in connection:
                await connection.send(protocol.pack(await self._answer(data, owned)))
        except ConnectionClosed:
            self._counts["connections lost"] += 1
        finally:
            self._sessions.close(owned)

    async def _answer(self, data: bytes | str, owned: set[str]) -> dict[str, Any]:
        try:
            return await self._handle(protocol.unpack(data), owned)
        except ProtocolError as error:
            self._counts[f"error:{error.code}"] += 1
            return {"type": "error", "code": error.code, "message": str(error)}

    async def _handle(self, message: dict[str, Any], owned: set[str]) -> dict[str, Any]:
        kind, now = message["type"], time.monotonic()
        if kind == "open":
            return await self._open(message, owned)
        if kind not in ("reset", "step", "speculate", "close"):
            raise ProtocolError(protocol.BAD_MESSAGE, f"type {kind!r}: expected open, reset, step, speculate or close")
        session = self._sessions.get(message.get("session"), owned, now, ready=kind in ("step", "speculate"))
        if kind == "close":
            self._sessions.close([session.id])
            owned.discard(session.id)
            return {"type": "closed", "session": session.id}
        if kind == "reset":
            instruction = message.get("instruction")
            if not isinstance(instruction, str):
                raise ProtocolError(protocol.BAD_MESSAGE, f"reset: instruction={instruction!r}, expected a text")
            session.ready = False  # if this fails, the episode before must not go on
            timing, _ = await self._compute(session, kind, lambda: session.policy.reset(instruction))
            session.ready = True
            return {"type": "ready", "session": session.id, "timing": timing}
        if kind == "speculate":
            policy = session.policy
            if self.info.mode != "sai" or not isinstance(policy, Speculator):
                raise ProtocolError(protocol.BAD_MESSAGE, f"speculate: the server runs in mode {self.info.mode}")
            timing, _ = await self._compute(session, kind, policy.speculate)
            return {"type": "speculated", "session": session.id, "timing": timing}
        seen = from_wire(message.get("observation"), self.info)
        timing, chunk = await self._compute(session, kind, lambda: session.policy.step(seen))
        return {"type": "chunk", "session": session.id, "action": np.asarray(chunk, np.float32), "timing": timing}

    async def _open(self, message: dict[str, Any], owned: set[str]) -> dict[str, Any]:
        version, encoder_id = message.get("protocol"), message.get("encoder_id", "")
        if not protocol.same(version, protocol.VERSION):
            raise ProtocolError(
                protocol.WRONG_PROTOCOL, f"protocol {version!r:.120}: this server speaks {protocol.VERSION}"
            )
        if not protocol.same(encoder_id, self.info.encoder_id):
            raise ProtocolError(
                protocol.WRONG_ENCODER,
                f"tokens of encoder {encoder_id!r:.120}: the policy was trained on {self.info.encoder_id!r}",
            )
        session = self._sessions.open(time.monotonic())
        owned.add(session.id)
        try:
            _, session.policy = await self._compute(session, "open", self._make_policy)
        except ProtocolError:
            self._sessions.close([session.id])
            raise
        return {"type": "opened", "session": session.id}

    async def _compute(self, session: Session, kind: str, call: Callable[[], Any]) -> tuple[dict[str, float], Any]:
        """Run `call` in the policy's thread; milliseconds of waiting and computing, and its result."""
        asked = time.perf_counter()

        def timed() -> tuple[float, float, Any]:
            began = time.perf_counter()
            result = call()
            return began - asked, time.perf_counter() - began, result

        session.busy = True
        try:
            wait, compute, result = await asyncio.get_running_loop().run_in_executor(self._thread, timed)
        except Exception as error:  # a stranger's policy, or an observation that only it finds wrong
            raise ProtocolError(protocol.POLICY_FAILED, f"{kind}: {type(error).__name__}: {error}") from error
        finally:
            session.busy, session.used_at = False, time.monotonic()
        self._counts[kind] += 1
        self._times.setdefault(kind, deque(maxlen=RECENT)).append((wait, compute))
        return {"wait_ms": wait * 1000.0, "compute_ms": compute * 1000.0}, result
