"""Shared memory between a shard and a consumer, without Ray: what is read is what was gathered, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embodichain.contracts import WindowSpec
from embodichain.replay import ReplayConfig, ShardStore, fake_episode
from embodichain.replay.assembly import ARRAYS, Assembly
from embodichain.replay.gather import batch_fields
from embodichain.replay.links import LinkLostError, Part, SharedLink, TcpLink
from embodichain.replay.ring import Ring, RingLayout
from embodichain.replay.serving import COUNTS, Endpoint, SlotServer

WINDOW = WindowSpec(frames=4, tau=8, chunk=16, burn_in=1)
ROOT = Path(__file__).parents[2]

SERVING = """
    import os, signal, sys, time
    from embodichain.replay import fake_episode
    from embodichain.replay.serving import SlotServer
    from tests.replay.test_ring import filled_store
    store = filled_store()
    {change}
    server = SlotServer(store, host="127.0.0.1")
    print(server.endpoint.address[1:], server.endpoint.key, server.endpoint.port, flush=True)
    time.sleep(60)
"""
CONSUMING = """
    import sys, time
    from embodichain.replay.links import SharedLink
    from embodichain.replay.serving import Endpoint
    from tests.replay.test_ring import one
    link = SharedLink(Endpoint(node_id="", address="\\0" + sys.argv[1], key=sys.argv[2]), 8, 3)
    for _ in range(3):
        link.ask(8, 5.0)
    part = one(link)
    print("holds slots", flush=True)
    time.sleep(60)
"""
BOTH = pytest.mark.parametrize("kind", [SharedLink, TcpLink])
DIES_HALF_WAY = """
    def sample(windows, out):
        out["tokens"][: windows // 2] = 1.0
        os.kill(os.getpid(), signal.SIGKILL)
    first, store.sample = store.sample, None
    store.sample = lambda windows, out: (setattr(store, "sample", sample), first(windows, out=out))[1]
"""


def filled_store(**changes: Any) -> ShardStore:
    config = ReplayConfig(**({"shards": 1, "capacity_pairs": 100_000, "min_size_pairs": 2, "max_reuse": 50} | changes))
    store = ShardStore(config, WINDOW, seed=3)
    for seed in range(6):
        store.append(fake_episode(seed, 40 + 9 * seed, 2, 3))
    return store


def one(link: SharedLink, timeout_s: float = 10.0) -> Part:
    """The next part, its slot still held."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        link.connection.poll(0.05)
        for part in link.arrived():
            return part
    pytest.fail("no part arrived")


def wait_for(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def shared_files() -> set[str]:
    """Names in /dev/shm, without the semaphores of whoever else is at work on this machine."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith("sem.")}


def mapped_rings() -> int:
    """How many rings this process has mapped."""
    return sum("memfd:embodichain-replay" in line for line in Path("/proc/self/maps").read_text().splitlines())


@contextmanager
def running(source: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def served_by(process: subprocess.Popen[str]) -> Endpoint:
    assert process.stdout is not None
    address, key, port = process.stdout.readline().split()
    return Endpoint(node_id="", address=f"\0{address}", key=key, host="127.0.0.1", port=int(port))


@pytest.fixture
def server() -> Iterator[SlotServer]:
    server = SlotServer(filled_store(), host="127.0.0.1")
    yield server
    server.close()


def test_a_ring_shows_the_reader_what_was_written() -> None:
    layout = RingLayout(generation=7, slots=3, windows=5, fields=batch_fields(WINDOW, (2, 3), 30))
    assert RingLayout.from_dict(layout.to_dict()) == layout
    writer, fd = Ring.create(layout)
    reader = Ring(fd, layout)
    for slot in range(3):
        for number, array in enumerate(writer.arrays(slot).values()):
            array[...] = (100 * slot + number) % 2 if array.dtype == bool else 100 * slot + number
    for slot in range(3):
        for number, array in enumerate(reader.arrays(slot).values()):
            assert array.shape[0] == 5
            assert array.ctypes.data % 64 == 0
            np.testing.assert_array_equal(
                array, (100 * slot + number) % 2 if array.dtype == bool else 100 * slot + number
            )
    with pytest.raises(ValueError, match="expected"):
        Ring(os.memfd_create("too-small"), layout)


def test_a_slot_counts_only_under_the_number_it_was_committed_with() -> None:
    layout = RingLayout(generation=7, slots=2, windows=1, fields={"start": ("i8", ())})
    writer, fd = Ring.create(layout)
    reader = Ring(os.dup(fd), layout)
    stranger = Ring(fd, replace(layout, generation=8))
    writer.begin(0)
    assert not reader.intact(0, 1), "a slot that is being written"
    first = writer.commit(0)
    assert reader.intact(0, first)
    assert not stranger.intact(0, first), "a ring of another life"
    assert not reader.intact(1, first), "another slot"
    writer.begin(0)
    assert not reader.intact(0, first)
    second = writer.commit(0)
    assert not reader.intact(0, first)
    assert reader.intact(0, second)


@BOTH
def test_parts_equal_those_of_the_same_store_in_process_whatever_lay_in_the_slot(
    server: SlotServer, kind: type[SharedLink]
) -> None:
    link, twin = kind(server.endpoint, 16, 1), filled_store()
    for windows in (16, 3, 1, 16, 7, 16, 2) * 3:
        link.ask(windows, 5.0)
        part, expected = one(link), twin.sample(windows)
        assert expected is not None
        for name in (*ARRAYS, "instruction", "recipe_id"):
            if name != "inserted_at":
                np.testing.assert_array_equal(getattr(part.reply.batch, name), getattr(expected.batch, name), name)
        np.testing.assert_array_equal(part.reply.fresh, expected.fresh)
        np.testing.assert_array_equal(part.reply.context, expected.context)
        assert part.intact()
        assert not list(link.arrived())
        del link._asked[0]  # `one` gave up its iterator before the slot was freed
        link._free.append(0)
    assert server._store.stats().uses == twin.stats().uses


def test_a_slot_that_is_overwritten_while_it_is_read_is_no_data(server: SlotServer) -> None:
    link = SharedLink(server.endpoint, 16, 2)
    link.ask(16, 5.0)
    part = one(link)
    batch = Assembly(16)
    batch.place(part, 0, 16)
    assert part.intact()
    link._free = deque([1])  # a consumer that breaks the rule: it gives back the slot that it still reads
    link.ask(16, 5.0)
    assert link.connection.poll(5.0)
    assert not part.intact()


@BOTH
def test_an_adopted_slot_is_not_written_to_until_its_last_view_is_gone(
    server: SlotServer, kind: type[SharedLink]
) -> None:
    link = kind(server.endpoint, 16, 1, spare=2)
    kept = []
    for _ in range(4):
        link.ask(8, 5.0)
        while link.in_flight:
            assert link.connection.poll(5.0)
            for part in link.arrived():
                seen = part.reply.batch.tokens.copy()
                kept.append((seen, part.adopt()))
    assert [own is not None for _, own in kept] == [True, True, False, False], "one slot stays for requests"
    views = []
    for seen, own in kept[:2]:
        assert own is not None
        assert own["tokens"].shape[0] == 16
        np.testing.assert_array_equal(own["tokens"][:8], seen)
        views.append(torch.from_numpy(own["tokens"])[2:5])
    wanted = [seen[2:5] for seen, _ in kept[:2]]
    del kept, own, part
    assert len(link._free) == 1, "the tensors still hold them"
    for view, seen in zip(views, wanted, strict=True):
        np.testing.assert_array_equal(view.numpy(), seen)
    views.clear()
    del view
    assert len(link._free) == 3


@BOTH
def test_a_consumer_that_takes_nothing_holds_up_nobody_else(server: SlotServer, kind: type[SharedLink]) -> None:
    hung, other = (kind(server.endpoint, 16, 2) for _ in range(2))
    for _ in range(2):
        hung.ask(16, 5.0)  # it never looks at the answers
    sizes = []
    for _ in range(8):
        other.ask(16, 5.0)
        while other.in_flight:
            assert other.connection.poll(5.0)
            sizes += [part.reply.batch.size for part in other.arrived()]
    assert sizes == [16] * 8
    part = one(hung)
    assert (part.reply.batch.size, part.intact()) == (16, True)  # what it was given is still its own


def test_a_store_without_data_answers_that_it_has_none_and_offers_its_ring_later() -> None:
    config = ReplayConfig(shards=1, capacity_pairs=100_000, min_size_pairs=2)
    store = ShardStore(config, WINDOW)
    server = SlotServer(store)
    link = SharedLink(server.endpoint, 4, 2)
    link.ask(4, 0.05)
    assert link.connection.poll(5.0)
    assert list(link.arrived()) == []
    assert link.in_flight == 0
    store.append(fake_episode(0, 60, 2, 3))
    link.ask(4, 5.0)
    assert one(link).reply.batch.size == 4
    server.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@BOTH
def test_who_does_not_know_the_key_is_turned_away_and_an_error_in_the_shard_is_heard(
    server: SlotServer, kind: type[SharedLink]
) -> None:
    stranger = kind(replace(server.endpoint, key="00" * 16), 4, 1)
    with pytest.raises(LinkLostError):
        one(stranger)
    with pytest.raises(LinkLostError):
        kind(replace(server.endpoint, address="\0nobody", port=1), 4, 1)
    link = kind(server.endpoint, 4, 1)
    link.ask(0, 1.0)
    with pytest.raises(RuntimeError, match="windows=0: expected at least 1"):
        one(link)


def test_a_killed_consumer_leaves_nothing_behind(server: SlotServer) -> None:
    before = shared_files()
    with running(CONSUMING, server.endpoint.address[1:], server.endpoint.key) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds slots\n"
        assert (server.consumers, mapped_rings()) == (1, 1)
        process.send_signal(signal.SIGKILL)
        assert wait_for(lambda: server.consumers == 0 and mapped_rings() == 0)
    assert shared_files() == before
    link = SharedLink(server.endpoint, 4, 1)  # the next one is served
    link.ask(4, 5.0)
    assert one(link).reply.batch.size == 4


def test_a_killed_shard_is_noticed_and_what_it_had_delivered_stays_readable() -> None:
    before = shared_files()
    with running(SERVING.format(change="")) as process:
        link = SharedLink(served_by(process), 8, 2)
        link.ask(8, 5.0)
        part = one(link)
        seen = part.reply.batch.tokens.copy()
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(LinkLostError):
            one(link)
        assert part.intact()
        np.testing.assert_array_equal(part.reply.batch.tokens, seen)
    assert shared_files() == before
    del part, link
    assert mapped_rings() == 0


@BOTH
def test_a_shard_that_dies_half_way_through_a_slot_delivers_nothing_of_it(kind: type[SharedLink]) -> None:
    with running(SERVING.format(change=textwrap.indent(DIES_HALF_WAY, ""))) as process:
        link = kind(served_by(process), 8, 2)
        for _ in range(2):
            link.ask(8, 5.0)
        parts: list[int] = []
        lost = False
        while not lost and link.connection.poll(10.0):
            try:
                for part in link.arrived():
                    parts.append(part.reply.batch.size)
            except LinkLostError:
                lost = True
        assert lost
        assert parts == [8]
        assert process.wait() == -signal.SIGKILL


def test_a_shard_that_is_cut_off_within_a_slot_or_owes_an_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cable that is pulled closes no connection: half a slot has arrived, or nothing, and then nothing ever again."""
    for module in ("serving", "links"):
        monkeypatch.setattr(f"embodichain.replay.{module}.SILENCE_S", 1.0)
    layout = RingLayout(generation=1, slots=1, windows=8, fields=batch_fields(WINDOW, (2, 3), 30) | COUNTS)
    half = [{"ring": layout.to_dict()}, {"slot": 0, "rows": 8, "instruction": [""] * 8, "recipe_id": [""] * 8}]
    for lines in (half, []):
        with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
            accepted = pool.submit(lambda listener=listener: _greet(listener))  # type: ignore[misc]
            port = listener.getsockname()[1]
            link = TcpLink(Endpoint(node_id="", address="", key="00" * 16, host="127.0.0.1", port=port), 8, 1)
            link.ask(8, 0.0)
            with accepted.result() as shard:
                for line in lines:
                    shard.send_bytes(json.dumps(line).encode())
                if lines:
                    os.write(shard.fileno(), bytes(100))
                began = time.monotonic()
                with pytest.raises(LinkLostError):
                    one(link)
                assert 0.5 < time.monotonic() - began < 8.0


def _greet(listener: socket.socket) -> Connection:
    connection = Connection(listener.accept()[0].detach())
    connection.send_bytes(bytes(32))
    connection.recv_bytes()
    return connection
