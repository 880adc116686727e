from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from embodichain.contracts import WindowSpec
from embodichain.replay import MinSize, ReplayConfig, SampleToInsertRatio


def test_min_size_gates_sampling_only() -> None:
    limiter = MinSize(100)
    limiter.insert(99)
    assert not limiter.can_sample()
    limiter.insert(1)
    assert limiter.can_sample(10_000)
    limiter.insert(1_000_000)
    assert limiter.can_insert()
    limiter.delete(1_000_001)
    assert not limiter.can_sample()


def test_ratio_is_kept_within_its_buffer_under_any_schedule() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        ratio, minimum = float(rng.uniform(0.3, 12)), int(rng.integers(1, 400))
        longest, window = int(rng.integers(20, 200)), 32
        buffer = max(1.0, ratio, window / 2) * float(rng.uniform(1, 5))
        limiter = SampleToInsertRatio(
            samples_per_insert=ratio, min_size_to_sample=minimum, error_buffer=buffer, window_pairs=window
        )
        greedy_inserts = rng.uniform(0.05, 0.95)
        for _ in range(400):
            assert limiter.can_insert() or limiter.can_sample(window), "deadlock"
            if rng.random() < greedy_inserts and limiter.can_insert():
                limiter.insert(int(rng.integers(1, longest)))
            elif limiter.can_sample(n := int(rng.integers(1, window + 1))):
                limiter.sample(n)
                assert limiter.error >= limiter.min_diff
            assert limiter.error <= limiter.max_diff + ratio * (longest + minimum)


def test_a_waiting_producer_is_woken_by_a_sample() -> None:
    limiter = SampleToInsertRatio(samples_per_insert=1.0, min_size_to_sample=1, error_buffer=10.0)
    limiter.insert(12)
    assert not limiter.await_that(limiter.can_insert, 0.01)
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(limiter.await_that(limiter.can_insert, 5.0)))
    thread.start()
    began = time.monotonic()
    limiter.sample(5)
    thread.join()
    assert woken == [True]
    assert time.monotonic() - began < 2.0
    assert not limiter.await_that(lambda: limiter.can_sample(1000), 0.01)


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"samples_per_insert": 8.0, "min_size_to_sample": 1, "error_buffer": 7.0}, "deadlock"),
        ({"samples_per_insert": 1.0, "min_size_to_sample": 1, "error_buffer": 15.0, "window_pairs": 32}, "deadlock"),
        ({"samples_per_insert": 1.0, "min_size_to_sample": 0, "error_buffer": 15.0}, "min_size_to_sample=0"),
        ({"samples_per_insert": -1.0, "min_size_to_sample": 1, "error_buffer": 15.0}, "samples_per_insert=-1.0"),
    ],
)
def test_limiters_that_would_deadlock_are_refused(kwargs: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        SampleToInsertRatio(**kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"max_reuse": 0}, "replay.max_reuse=0: expected"),
        ({"shards": 0}, "replay.shards=0"),
        ({"mode": "cyclic"}, "replay.mode='cyclic'"),
        ({"capacity_pairs": 2_000}, "replay.capacity_pairs=2000"),
        ({"samples_per_insert": 51.0}, "replay.samples_per_insert=51.0"),
        ({"error_buffer": 1.0}, "replay.error_buffer=1.0"),
        ({"mode": "static", "samples_per_insert": 2.0}, "replay.samples_per_insert=2.0"),
    ],
)
def test_impossible_configurations_name_the_key(changes: dict[str, object], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        ReplayConfig(**changes)  # type: ignore[arg-type]


def test_shards_share_the_totals() -> None:
    window = WindowSpec(frames=4, tau=8)
    config = ReplayConfig(shards=3, capacity_pairs=9_000, min_size_pairs=1_000, samples_per_insert=8.0)
    share = config.share(window)
    assert (share.shards, share.capacity_pairs, share.min_size_pairs) == (1, 3_000, 334)
    assert share.error_buffer == pytest.approx(800 / 3)
    with pytest.raises(ValueError, match="deadlock"):
        ReplayConfig(samples_per_insert=8.0, error_buffer=60.0).share(window)
