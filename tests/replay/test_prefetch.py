from __future__ import annotations

import threading
import time
from itertools import count

import pytest

from embodichain.replay.prefetch import Prefetcher


def wait_for_end(prefetcher: Prefetcher[int]) -> bool:
    prefetcher._thread.join(5.0)
    return not prefetcher._thread.is_alive()


def test_items_come_in_order_and_no_more_are_made_than_there_is_room_for() -> None:
    made: list[int] = []
    numbers = count()

    def make(timeout_s: float) -> int:
        made.append(next(numbers))
        return made[-1]

    prefetcher = Prefetcher(make, depth=2)
    time.sleep(0.3)
    assert made == [0, 1, 2], "two ready and one that waits for room"
    assert [prefetcher.next(1.0) for _ in range(20)] == list(range(20))
    prefetcher.close()
    left = len(made)
    time.sleep(0.3)
    assert len(made) == left


def test_the_next_item_is_made_while_the_present_one_is_used() -> None:
    def make(timeout_s: float) -> int:
        time.sleep(0.05)
        return 1

    prefetcher = Prefetcher(make)
    prefetcher.next(1.0)
    waited = 0.0
    for _ in range(8):
        time.sleep(0.1)  # the work
        began = time.monotonic()
        assert prefetcher.next(1.0) == 1
        waited += time.monotonic() - began
    prefetcher.close()
    assert waited < 0.2, "made one after the other they would have cost 0.4 s"


def test_no_data_is_none_and_loses_nothing() -> None:
    gate = threading.Event()
    prefetcher = Prefetcher(lambda timeout_s: 5 if gate.wait(timeout_s) else None)
    assert prefetcher.next(0.1) is None
    gate.set()
    assert prefetcher.next(2.0) == 5
    prefetcher.close()


def test_what_breaks_in_the_thread_is_raised_after_the_good_items() -> None:
    numbers = count()

    def make(timeout_s: float) -> int:
        if (number := next(numbers)) == 2:
            raise ValueError("shard cuts other windows")
        return number

    prefetcher = Prefetcher(make, depth=4)
    assert [prefetcher.next(1.0), prefetcher.next(1.0)] == [0, 1]
    assert wait_for_end(prefetcher)
    for _ in range(2):
        with pytest.raises(ValueError, match="other windows"):
            prefetcher.next(1.0)
    prefetcher.close()
    with pytest.raises(ValueError, match="depth=0"):
        Prefetcher(make, depth=0)
