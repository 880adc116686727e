"""A server and its clients in one process: what is answered, and that nothing a client does takes the server down."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from embodichain.contracts import ACTION_DIM, Observation, PolicyInput
from embodichain.serving import PolicyInfo, PolicyServer, ProtocolError, RemotePolicy, ServerConfig
from embodichain.serving import protocol as wire

TOKENS = {"name": "state", "encoder_id": "fake", "shape": [4, 12]}
INFO = PolicyInfo(name="counter", replan=8, chunk=16, tokens=TOKENS)


class Counter:
    """Answers how often it was asked since its reset, and how many actions were executed."""

    replan, encoder_id, needs_rgb = 8, "fake", False

    def reset(self, instruction: str) -> None:
        if instruction == "fail":
            raise RuntimeError("no such word")
        self.asked = 0

    def step(self, seen: PolicyInput) -> np.ndarray:
        self.asked += 1
        return np.full((16, ACTION_DIM), self.asked + len(seen.executed) / 100, np.float32)


class Slow(Counter):
    """Answers a step once it may go on."""

    def __init__(self, go_on: threading.Event) -> None:
        self._go_on = go_on

    def step(self, seen: PolicyInput) -> np.ndarray:
        self._go_on.wait(20)
        return super().step(seen)


@contextmanager
def running(info: PolicyInfo = INFO, make: Any = Counter, **settings: Any) -> Iterator[PolicyServer]:
    server = PolicyServer(info, make, ServerConfig(port=0, **settings))
    loop, stop, up = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(server.run(up.set, stop),))
    thread.start()
    assert up.wait(20)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def server() -> Iterator[PolicyServer]:
    with running() as server:
        yield server


def seen(done: int = 0, **changes: Any) -> PolicyInput:
    nothing = np.zeros((0, 7), np.float32)
    observation = Observation(
        proprio=np.zeros(ACTION_DIM, np.float32), object_pose=nothing, object_size=nothing[:, :3],
        object_grasp=np.zeros((0, 2, 3), np.float32), goal_pose=nothing, goal_size=nothing[:, :3],
        tool_pose=np.zeros((2, 7), np.float32),
    )  # fmt: skip
    whole = PolicyInput(
        observation=observation,
        executed=np.zeros((done, ACTION_DIM), np.float32),
        tokens=np.ones((4, 12), np.float32),
        token_mask=np.ones(4, dtype=bool),
    )
    return replace(whole, **changes)


def get(server: PolicyServer, path: str, token: str = "") -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = server.url.replace("ws://", "http://") + path
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        return json.load(answer)


def works(server: PolicyServer) -> None:
    """A newcomer is served as if nothing had happened."""
    with RemotePolicy(server.url) as policy:
        policy.reset("go")
        assert policy.step(seen())[0, 0] == 1.0


def refused(code: str, match: str, call: Any, *arguments: Any) -> None:
    with pytest.raises(ProtocolError, match=match) as caught:
        call(*arguments)
    assert caught.value.code == code


def test_sessions_keep_their_own_memory_and_know_what_was_executed(server):
    with RemotePolicy(server.url) as one, RemotePolicy(server.url) as two:
        assert (one.info, one.replan, one.encoder_id) == (INFO, 8, "fake")
        one.reset("go")
        two.reset("go")
        assert [one.step(seen())[0, 0], one.step(seen(8))[0, 0]] == pytest.approx([1.0, 2.08])
        assert two.step(seen())[0, 0] == 1.0
        one.reset("again")
        assert one.step(seen())[0, 0] == 1.0
        assert one.timing["compute_ms"] >= 0


def test_health_and_timing_pages(server):
    works(server)
    health = get(server, "/healthz")
    assert (health["status"], health["protocol"]) == ("ok", wire.VERSION)
    steps = get(server, "/timing")["answers"]["step"]
    assert steps["n"] >= 1
    assert steps["compute_ms_p95"] >= steps["compute_ms_p50"] >= 0
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(server, "/secrets")


def test_waiting_for_other_sessions_is_measured():
    go_on = threading.Event()
    with running(make=partial(Slow, go_on)) as server, ExitStack() as stack:
        policies = [stack.enter_context(RemotePolicy(server.url)) for _ in range(3)]
        for policy in policies:
            policy.reset("go")
        threads = [threading.Thread(target=policy.step, args=(seen(),)) for policy in policies]
        for thread in threads:
            thread.start()
        for _ in range(400):
            if sum(session.busy for session in server._sessions._open.values()) == 3:
                break
            threading.Event().wait(0.05)
        threading.Event().wait(0.1)
        go_on.set()
        for thread in threads:
            thread.join(20)
        steps = get(server, "/timing")["answers"]["step"]
        assert steps["n"] == 3
        assert steps["wait_ms_p50"] >= 100  # one computed, two waited
        first, *waited = sorted(policy.timing["wait_ms"] for policy in policies)
        assert min(waited) >= 100
        assert first < min(waited)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tokens": np.ones((5, 12), np.float32)}, r"tokens: shape \[5, 12\], expected \[4, 12\]"),
        ({"tokens": np.full((4, 12), np.nan, np.float32)}, r"tokens: 48 of 48 numbers are not finite"),
        ({"tokens": np.full((4, 12), 1e300)}, r"tokens: 48 of 48 numbers are not finite"),
        ({"tokens": np.ones((4, 12), np.int64)}, r"tokens: dtype int64, expected float"),
        ({"token_mask": np.ones(3, bool)}, r"token_mask: shape \[3\], expected \[4\]"),
        ({"executed": np.zeros((2, 7), np.float32)}, r"executed: shape \[2, 7\], expected \[n, 30\]"),
        ({"observation": replace(seen().observation, proprio=np.full(30, np.inf, np.float32))}, r"proprio: 30 of 30"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused_and_the_session_lives(server, changes, match):
    with RemotePolicy(server.url) as policy:
        policy.reset("go")
        refused(wire.BAD_OBSERVATION, match, policy.step, seen(**changes))
        assert policy.step(seen())[0, 0] == 1.0


def test_nan_frames_and_frames_of_another_size_are_refused():
    info = PolicyInfo(name="eyes", replan=8, chunk=16, rgb={"cameras": ["front"], "width": 32, "height": 16})

    class Eyes(Counter):
        encoder_id, needs_rgb = "", True

    with running(info, Eyes) as server, RemotePolicy(server.url) as policy:
        policy.reset("go")
        for frame, match in (
            (np.zeros((1, 16, 16, 3), np.uint8), r"rgb: shape \[1, 16, 16, 3\], expected \[1, 16, 32, 3\]"),
            (np.full((1, 16, 32, 3), np.nan, np.float32), "rgb: dtype float32, expected uint8"),
            (None, "rgb: none given"),
        ):
            observation = replace(seen().observation, rgb=frame)
            refused(wire.BAD_OBSERVATION, match, policy.step, seen(observation=observation))
        observation = replace(seen().observation, rgb=np.zeros((1, 16, 32, 3), np.uint8))
        assert policy.step(seen(observation=observation))[0, 0] == 1.0


class Raw:
    """A connection that sends what it likes."""

    def __init__(self, server: PolicyServer) -> None:
        self._stack = ExitStack()
        self.connection: ClientConnection = self._stack.enter_context(connect(server.url, proxy=None))
        assert wire.unpack(self.connection.recv())["type"] == "hello"

    def close(self) -> None:
        self._stack.close()

    def ask(self, data: bytes | str | dict[str, Any]) -> tuple[str, str]:
        """Code and message of the error; or the type of the answer."""
        self.connection.send(wire.pack(data) if isinstance(data, dict) else data)
        answer = wire.unpack(self.connection.recv(timeout=20))
        return answer.get("code", answer["type"]), answer.get("message", "")


ARRAY = msgpack.ExtType(1, msgpack.packb(["int64", [2], np.ones(2, np.int64).tobytes()]))
ARRAY_OF_OBJECTS = msgpack.ExtType(1, msgpack.packb(["object", [1], b"12345678"]))
ARRAY_TOO_SHORT = msgpack.ExtType(1, msgpack.packb(["float32", [1000, 1000, 1000], b"12345678"]))


@pytest.mark.parametrize(
    ("data", "code", "match"),
    [
        (b"\xc1\xff\x00junk", wire.BAD_MESSAGE, "not msgpack"),
        (b"", wire.BAD_MESSAGE, "not msgpack"),
        ("hello", wire.BAD_MESSAGE, "a text frame"),
        (msgpack.packb([1, 2]), wire.BAD_MESSAGE, "expected a map"),
        (msgpack.packb({"type": "dance"}), wire.BAD_MESSAGE, "'dance'"),
        (msgpack.packb({"type": "open", "protocol": 99}), wire.WRONG_PROTOCOL, "this server speaks 1"),
        (msgpack.packb({"type": "open", "protocol": 1, "encoder_id": "x"}), wire.WRONG_ENCODER, "trained on 'fake'"),
        (msgpack.packb({"type": "open", "protocol": ARRAY}), wire.WRONG_PROTOCOL, "protocol array([1, 1]):"),
        (msgpack.packb({"type": "open", "protocol": 1, "encoder_id": ARRAY}), wire.WRONG_ENCODER, "encoder array"),
        (msgpack.packb({"type": "step", "session": "beef"}), wire.UNKNOWN_SESSION, "'beef': not open"),
        (msgpack.packb({"type": "reset", "session": ["a"]}), wire.UNKNOWN_SESSION, "not open"),
        (msgpack.packb({"type": "step", "x": ARRAY_OF_OBJECTS}), wire.BAD_MESSAGE, "dtype 'object'"),
        (msgpack.packb({"type": "step", "x": ARRAY_TOO_SHORT}), wire.BAD_MESSAGE, "8 bytes, expected 4000000000"),
        (msgpack.packb({"type": "step", "x": msgpack.ExtType(7, b"")}), wire.BAD_MESSAGE, "extension type 7"),
    ],
)
def test_junk_gets_a_clear_error_and_the_connection_lives(server, data, code, match):
    raw = Raw(server)
    got, message = raw.ask(data)
    assert (got, match in message) == (code, True), message
    assert raw.ask({"type": "open", "protocol": 1, "encoder_id": "fake"})[0] == "opened"
    raw.close()


def test_a_session_of_another_connection_is_unknown(server):
    raw = Raw(server)
    with RemotePolicy(server.url) as policy:
        message = {"type": "reset", "session": policy._session, "instruction": "mine now"}
        assert raw.ask(message)[0] == wire.UNKNOWN_SESSION
    raw.close()


def test_a_message_that_is_too_large_ends_its_connection_alone():
    with running(max_message_bytes=20_000) as server, RemotePolicy(server.url) as policy:
        policy.reset("go")
        refused(wire.UNREACHABLE, "1009|too big", policy.step, seen(2000))
        works(server)


def test_a_client_that_dies_in_mid_episode_leaves_nothing_behind():
    with running(max_sessions=1) as server:
        policy = RemotePolicy(server.url)
        policy.reset("go")
        policy.step(seen())
        refused(wire.TOO_MANY_SESSIONS, "1 sessions are open", RemotePolicy, server.url)
        policy._connection.socket.close()  # as the kernel does it for a killed process: no goodbye
        for _ in range(100):
            if get(server, "/healthz")["sessions"] == 0:
                break
            threading.Event().wait(0.05)
        works(server)


def test_an_idle_session_ends():
    with running(max_sessions=1, session_idle_s=0.05) as server, RemotePolicy(server.url) as policy:
        threading.Event().wait(0.2)
        refused(wire.UNKNOWN_SESSION, r"0\.05 idle seconds", policy.reset, "go")
        assert get(server, "/timing")["timed_out"] == 1


def test_step_before_reset_and_speculation_out_of_place(server):
    with RemotePolicy(server.url) as policy:
        refused(wire.NOT_RESET, "expected an instruction first", policy.step, seen())
        policy.reset("go")
        refused(wire.BAD_MESSAGE, "the server runs in mode sync", policy.speculate)


def test_a_policy_that_raises_is_reported_and_the_session_lives(server):
    with RemotePolicy(server.url) as policy:
        refused(wire.POLICY_FAILED, "RuntimeError: no such word", policy.reset, "fail")
        policy.reset("go")
        assert policy.step(seen())[0, 0] == 1.0
        refused(wire.POLICY_FAILED, "RuntimeError: no such word", policy.reset, "fail")
        refused(wire.NOT_RESET, "expected an instruction first", policy.step, seen())  # not the episode before


def test_a_policy_that_cannot_be_made_takes_no_session() -> None:
    made: list[Counter] = []

    def make() -> Counter:
        made.append(Counter())
        if len(made) == 1:
            raise ValueError("no weights")
        return made[-1]

    with running(make=make, max_sessions=1) as server:
        refused(wire.POLICY_FAILED, "open: ValueError: no weights", RemotePolicy, server.url)
        works(server)


def test_who_is_refused_leaves_no_connection_behind() -> None:
    with running(max_sessions=1) as server, RemotePolicy(server.url) as policy:
        for _ in range(3):
            refused(wire.TOO_MANY_SESSIONS, "1 sessions", RemotePolicy, server.url)
        policy.reset("go")
        assert server._server is not None
        for _ in range(100):
            if len(server._server.connections) == 1:
                break
            threading.Event().wait(0.1)
        assert len(server._server.connections) == 1


def test_an_address_of_six_parts_can_be_connected_to() -> None:
    with running(host="::1") as server:
        assert server.url.startswith("ws://[::1]:")
        works(server)


def test_the_token_is_demanded_and_compared():
    with running(token="open sesame") as server:
        for token in ("", "open"):
            refused(wire.UNAUTHORISED, "demands a token", lambda t: RemotePolicy(server.url, token=t), token)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(server, "/timing")
        assert get(server, "/healthz")["status"] == "ok"
        assert get(server, "/timing", token="open sesame")["policy"] == "counter"
        with RemotePolicy(server.url, token="open sesame") as policy:
            policy.reset("go")
            assert policy.step(seen())[0, 0] == 1.0


def test_other_machines_need_a_token_and_web_pages_are_not_served(server):
    with pytest.raises(ValueError, match=r"host=0\.0\.0\.0: reachable from other machines"):
        ServerConfig(host="0.0.0.0")
    with (
        pytest.raises(InvalidStatus, match="403"),
        connect(server.url, origin=Origin("http://evil.example"), proxy=None),
    ):
        pass


def test_nobody_there_and_a_server_that_goes_away():
    refused(wire.UNREACHABLE, "no policy server answers there", RemotePolicy, "ws://127.0.0.1:9")
    with running() as server:
        policy = RemotePolicy(server.url, timeout_s=20)
    refused(wire.UNREACHABLE, "the connection is gone", policy.reset, "go")


def test_after_a_timeout_the_connection_is_closed_and_no_later_answer_is_taken_for_another_ones():
    go_on = threading.Event()
    with running(make=partial(Slow, go_on)) as server:
        policy = RemotePolicy(server.url, timeout_s=1.0)
        policy.reset("go")
        refused(wire.UNREACHABLE, "the connection is gone", policy.step, seen())
        go_on.set()
        for call in (lambda: policy.reset("again"), lambda: policy.step(seen())):
            refused(wire.UNREACHABLE, "the connection is gone", call)
        works(server)
