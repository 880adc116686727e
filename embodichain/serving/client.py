"""The client's side: a policy behind a server, used like any other policy."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

from embodichain.contracts import ACTION_DIM, PolicyInput
from embodichain.serving import protocol
from embodichain.serving.observation import to_wire
from embodichain.serving.protocol import PolicyInfo, ProtocolError

CLOSE_S = 10.0  # for saying goodbye to a server that may be stuck


class RemotePolicy:
    """One session of a policy server behind the `Policy` and `Speculator` protocols; blocking, for one thread.

    Args:
        url: `ws://host:port`.
        token: what the server demands, if it does.
        timeout_s: for connecting, and for every answer.

    Attributes:
        info: what the server says of its policy.
        timing: `wait_ms` and `compute_ms` of the last answer, on the server.

    Raises:
        ProtocolError: `unreachable`, `unauthorised`, `wrong_protocol`, or as the server answers. Every method may raise
            it; after `unreachable` the connection is gone.
    """

    def __init__(self, url: str, *, token: str = "", timeout_s: float = 60.0) -> None:
        self.url, self._timeout_s = url, timeout_s
        self._stack = ExitStack()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self._connection: ClientConnection = self._stack.enter_context(
                connect(
                    url,
                    additional_headers=headers,
                    open_timeout=timeout_s,
                    close_timeout=min(timeout_s, CLOSE_S),
                    max_size=protocol.MAX_MESSAGE_BYTES,
                    compression=None,
                    proxy=None,
                )
            )
        except InvalidStatus as error:
            wrong_token = error.response.status_code == 401
            code = protocol.UNAUTHORISED if wrong_token else protocol.UNREACHABLE
            what = "the server demands a token, and not this one" if wrong_token else str(error)
            raise ProtocolError(code, f"{url}: {what}") from error
        except (OSError, InvalidURI, InvalidHandshake, ConnectionClosed) as error:
            raise ProtocolError(protocol.UNREACHABLE, f"{url}: no policy server answers there ({error})") from error
        self.timing: dict[str, float] = {}
        try:
            self.info = PolicyInfo.from_message(self._receive("hello"))
            self.replan, self.encoder_id, self.needs_rgb = self.info.replan, self.info.encoder_id, bool(self.info.rgb)
            self.work = self.info.work
            opened = self._ask("opened", type="open", protocol=protocol.VERSION, encoder_id=self.encoder_id)
            self._session = opened.get("session")
        except BaseException:  # nobody else holds the connection, and its thread would keep it open
            self.close()
            raise

    def reset(self, instruction: str) -> None:
        """See `Policy.reset`."""
        self._ask("ready", type="reset", session=self._session, instruction=instruction)

    def step(self, seen: PolicyInput) -> np.ndarray:
        """See `Policy.step`."""
        parts = to_wire(seen, self.info)
        answer = self._ask("chunk", type="step", session=self._session, observation=parts)
        chunk = answer.get("action")
        if not isinstance(chunk, np.ndarray) or chunk.ndim != 2 or chunk.shape[1] != ACTION_DIM:
            shape = list(chunk.shape) if isinstance(chunk, np.ndarray) else type(chunk).__name__
            raise ProtocolError(protocol.BAD_MESSAGE, f"chunk.action: {shape}, expected f32[n, {ACTION_DIM}]")
        if len(chunk) < self.replan:
            raise ProtocolError(
                protocol.BAD_MESSAGE, f"chunk.action: {len(chunk)} actions, expected at least replan={self.replan}"
            )
        return chunk.astype(np.float32)

    def speculate(self) -> None:
        """See `Speculator.speculate`."""
        self._ask("speculated", type="speculate", session=self._session)

    def close(self) -> None:
        """End the session and the connection."""
        self._stack.close()

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, expected: str, **message: Any) -> dict[str, Any]:
        try:
            self._connection.send(protocol.pack(message))
        except (ConnectionClosed, OSError) as error:
            raise ProtocolError(protocol.UNREACHABLE, f"{self.url}: the connection is gone ({error})") from error
        answer = self._receive(expected)
        self.timing = answer.get("timing") or {}
        return answer

    def _receive(self, expected: str) -> dict[str, Any]:
        try:
            answer = protocol.unpack(self._connection.recv(timeout=self._timeout_s))
        except (ConnectionClosed, OSError, TimeoutError) as error:
            self.close()  # an answer that comes too late would be read as the next one's
            why = str(error) or f"no answer in {self._timeout_s:g} s"
            raise ProtocolError(protocol.UNREACHABLE, f"{self.url}: the connection is gone ({why})") from error
        if answer["type"] == "error":
            raise ProtocolError(str(answer.get("code")), str(answer.get("message")))
        if answer["type"] != expected:
            raise ProtocolError(protocol.BAD_MESSAGE, f"{self.url}: answered {answer['type']!r}, expected {expected!r}")
        return answer
