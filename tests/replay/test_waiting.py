"""Both sides wait as long as they said they would, and no longer than until the other side has moved."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from embodichain.contracts import WindowSpec
from embodichain.replay import ReplayConfig, fake_episode
from embodichain.replay.shard import ReplayShard

WINDOW = WindowSpec(frames=3, tau=4, chunk=8)
LENGTH = 60


def make_shard(**changes: Any) -> Any:
    """A shard as a plain object: its limiter keeps 2 uses per pair, within 100 uses of 2 x 100."""
    defaults = {"shards": 1, "min_size_pairs": 100, "samples_per_insert": 2.0, "error_buffer": 100.0, "max_reuse": 50}
    return ReplayShard(0, ReplayConfig(**(defaults | changes)), WINDOW)


def fill(shard: Any, first: int = 0) -> int:
    """Append until the limiter says no; how many entered."""
    count = 0
    while not shard.append([fake_episode(first + count, LENGTH, 2, 3)], timeout_s=0.0).retry:
        count += 1
    return count


def drain(shard: Any) -> int:
    """Sample until the limiter says no; the uses."""
    uses = 0
    while (reply := shard.sample(4, timeout_s=0.0)) is not None:
        uses += reply.batch.pair_uses
    return uses


def seconds(call: Callable[[], object]) -> tuple[float, Any]:
    began = time.monotonic()
    result = call()
    return time.monotonic() - began, result


@pytest.mark.parametrize("timeout_s", [0.0, 0.3])
def test_a_producer_is_sent_away_after_its_time_and_a_learner_too(timeout_s: float) -> None:
    shard = make_shard()
    entered = fill(shard)
    took, reply = seconds(lambda: shard.append([fake_episode(99, LENGTH, 2, 3)], timeout_s=timeout_s))
    assert reply.retry == (fake_episode(99, LENGTH, 2, 3).recipe.id,)
    assert timeout_s <= took < timeout_s + 0.5
    assert shard.store.limiter.max_diff < shard.store.limiter.error <= shard.store.limiter.max_diff + 2 * LENGTH
    uses = drain(shard)
    took, nothing = seconds(lambda: shard.sample(4, timeout_s=timeout_s))
    assert nothing is None
    assert timeout_s <= took < timeout_s + 0.5
    assert 0 <= 2 * entered * LENGTH - uses - shard.store.limiter.min_diff < WINDOW.pairs
    assert fill(shard, first=50) > 0  # and neither is stuck: the other side can always move


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"samples_per_insert": None, "error_buffer": None, "fresh_per_step": 48.0, "step_windows": 4.0},
    ],
    ids=["ratio", "fresh rate"],
)
def test_a_waiting_producer_goes_on_as_soon_as_a_learner_took_enough(changes: dict[str, Any]) -> None:
    shard = make_shard(**changes)
    fill(shard)
    done: list[tuple[float, Any]] = []
    thread = threading.Thread(
        target=lambda: done.append(seconds(lambda: shard.append([fake_episode(99, LENGTH, 2, 3)], timeout_s=20.0)))
    )
    thread.start()
    time.sleep(0.2)
    assert thread.is_alive()
    drain(shard) if not changes else [shard.sample(4, timeout_s=0.0) for _ in range(40)]
    thread.join(timeout=5.0)
    assert len(done[0][1].accepted) == 1
    assert 0.2 <= done[0][0] < 5.0


def test_a_waiting_learner_goes_on_as_soon_as_a_producer_brought_enough() -> None:
    shard = make_shard()
    fill(shard)
    drain(shard)
    done: list[tuple[float, Any]] = []
    thread = threading.Thread(target=lambda: done.append(seconds(lambda: shard.sample(4, timeout_s=20.0))))
    thread.start()
    time.sleep(0.2)
    assert thread.is_alive()
    assert shard.append([fake_episode(99, LENGTH, 2, 3)], timeout_s=0.0).accepted
    thread.join(timeout=5.0)
    assert done[0][1].batch.size >= 1
    assert 0.2 <= done[0][0] < 5.0


def test_below_the_minimum_size_learners_wait_and_producers_do_not() -> None:
    shard = make_shard(min_size_pairs=200)
    for seed in range(3):
        assert shard.append([fake_episode(seed, LENGTH, 2, 3)], timeout_s=0.0).accepted
        assert shard.sample(1, timeout_s=0.0) is None
    assert shard.append([fake_episode(3, LENGTH, 2, 3)], timeout_s=0.0).accepted
    assert shard.sample(1, timeout_s=0.0) is not None
