"""Sessions of a policy server: one policy with its own memory each, a bound on their number, and an end when idle.

Plain code without sockets or threads; time is passed in.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from embodichain.contracts import Policy
from embodichain.serving.protocol import NOT_RESET, TOO_MANY_SESSIONS, UNKNOWN_SESSION, ProtocolError


@dataclass(kw_only=True)
class Session:
    """One client's episode after another.

    Attributes:
        id: unguessable. `policy`: with the memory of this session alone, set by whoever opened the session.
        used_at: when it was used last, seconds. `ready`: an instruction was given. `busy`: it computes right now.
    """

    id: str
    policy: Policy = field(init=False)
    used_at: float
    ready: bool = False
    busy: bool = False


class Sessions:
    """All sessions of a server.

    Args:
        most: sessions at once.
        idle_s: a session that is not used for so long is dropped.
    """

    def __init__(self, *, most: int, idle_s: float) -> None:
        if most < 1 or idle_s <= 0:
            raise ValueError(f"sessions: most={most}, idle_s={idle_s}: expected at least 1, and more than 0")
        self.most, self.idle_s = most, idle_s
        self._open: dict[str, Session] = {}
        self.timed_out = 0

    def __len__(self) -> int:
        return len(self._open)

    def open(self, now: float) -> Session:
        """A new session, still without its policy. Raises `ProtocolError` (`too_many_sessions`) when none is free."""
        self.drop_idle(now)
        if len(self._open) >= self.most:
            raise ProtocolError(
                TOO_MANY_SESSIONS, f"{len(self._open)} sessions are open, the server's bound; try again later"
            )
        session = Session(id=secrets.token_hex(8), used_at=now)
        self._open[session.id] = session
        return session

    def get(self, name: object, owned: Iterable[str], now: float, *, ready: bool = False) -> Session:
        """The session of this id, if it is among those that the asking connection opened.

        Raises:
            ProtocolError: `unknown_session`; `not_reset` if `ready` is asked for and no instruction was given.
        """
        self.drop_idle(now)
        session = self._open.get(name) if isinstance(name, str) and name in owned else None
        if session is None:
            raise ProtocolError(
                UNKNOWN_SESSION,
                f"session {name!r}: not open on this connection; sessions end after {self.idle_s:g} idle seconds",
            )
        if ready and not session.ready:
            raise ProtocolError(NOT_RESET, f"session {name!r}: step before reset, expected an instruction first")
        session.used_at = now
        return session

    def close(self, names: Iterable[str]) -> None:
        """Drop these sessions; those that are gone already are ignored."""
        for name in names:
            self._open.pop(name, None)

    def drop_idle(self, now: float) -> None:
        """Drop what was not used for `idle_s`."""
        idle = [s.id for s in self._open.values() if not s.busy and now - s.used_at > self.idle_s]
        self.timed_out += len(idle)
        self.close(idle)
