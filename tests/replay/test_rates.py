from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from embodichain.contracts import WindowSpec
from embodichain.replay import AppendStatus, PassLedger, ReplayConfig, ReplayStats, ShardStore, fake_episode, route
from embodichain.replay.rates import FreshRate
from embodichain.replay.snapshot import restore, save

WINDOW = WindowSpec(frames=4, tau=4, chunk=4)  # 16 pairs
BATCH = 32


def config(fresh: float | None = None, **changes: object) -> ReplayConfig:
    defaults: dict[str, object] = {
        "shards": 1,
        "capacity_pairs": 8_000,
        "min_size_pairs": 400,
        "max_reuse": 40,
        "fresh_per_step": fresh,
        "step_windows": BATCH,
    }
    return ReplayConfig(**(defaults | changes))  # type: ignore[arg-type]


def open_shards(settings: ReplayConfig) -> list[ShardStore]:
    return [ShardStore(settings.share(WINDOW), WINDOW, seed=3, shard=i) for i in range(settings.shards)]


class Producers:
    """Append whatever the shards let in: they can always exceed the target."""

    def __init__(self, shards: list[ShardStore]) -> None:
        self.shards, self.seed = shards, 0

    def push(self, at_most: int = 50) -> None:
        for _ in range(at_most):
            episode = fake_episode(self.seed, 40 + self.seed % 37, 2, 3, mistakes=0.1 * (self.seed % 2))
            if self.shards[route(episode.recipe.id, len(self.shards))].append(episode) is not AppendStatus.ACCEPTED:
                return
            self.seed += 1


def learn(shards: list[ShardStore], producers: Producers, steps: int, rng: np.random.Generator) -> list[int]:
    """Fresh pairs of every step; the shards' parts of a step are as uneven as chance makes them."""
    fresh = []
    for _ in range(steps):
        missing, pairs = BATCH, 0
        while missing:
            producers.push()
            reply = shards[int(rng.integers(len(shards)))].sample(int(rng.integers(1, missing + 1)))
            if reply is not None:
                missing, pairs = missing - reply.batch.size, pairs + int(reply.fresh.sum())
        fresh.append(pairs)
    return fresh


@pytest.mark.parametrize(
    ("target", "shards", "selector"), [(16.0, 1, "uniform"), (64.0, 3, "prioritised"), (256.0, 2, "fifo")]
)
def test_the_target_is_held_over_uneven_shards_and_nothing_leaves_unused(
    target: float, shards: int, selector: str
) -> None:
    stores = open_shards(config(target, shards=shards, selector=selector))
    fresh = learn(stores, Producers(stores), 240, np.random.default_rng(1))
    stats = ReplayStats.merge(store.stats() for store in stores)
    assert sum(fresh) == stats.unique_pairs
    assert np.mean(fresh) == pytest.approx(target, rel=0.1)
    assert np.mean(fresh[-180:]) == pytest.approx(target, rel=0.1)
    assert stats.evicted_unused_pairs == 0
    assert stats.reuse_max <= 40
    assert stats.holding_back == shards


@pytest.mark.parametrize("selector", ["uniform", "lifo"])  # lifo leaves the oldest unused for long
def test_the_oldest_used_leave_when_the_rate_needs_less_than_the_bound_allows(selector: str) -> None:
    stores = open_shards(config(128.0, capacity_pairs=2_000, selector=selector))
    fresh = learn(stores, Producers(stores), 200, np.random.default_rng(1))
    stats = stores[0].stats()
    assert np.mean(fresh) == pytest.approx(128.0, rel=0.1)
    assert stats.evicted_pairs > 5_000
    assert stats.evicted_unused_pairs == 0
    assert stats.pairs_held <= 2_000


def test_with_slow_producers_the_learner_waits_and_the_target_is_held() -> None:
    (store,) = open_shards(config(64.0))
    producers, rng = Producers([store]), np.random.default_rng(1)
    before = sum(learn([store], producers, 50, rng))
    windows, fresh = 0, before
    for _ in range(200):  # one episode a turn, however much the learner asks for
        producers.push(at_most=1)
        for _ in range(20):
            reply = store.sample(BATCH)
            if reply is not None:
                windows, fresh = windows + reply.batch.size, fresh + int(reply.fresh.sum())
    slack = 4 * 64.0 + WINDOW.pairs
    assert fresh == pytest.approx((50 + windows / BATCH) * 64.0, abs=slack)
    assert store.sample(BATCH) is None
    assert not store.wait_sample(0.05)
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(store.wait_sample(10.0)))
    thread.start()
    producers.push(at_most=1)
    thread.join()
    assert woken == [True]


def test_a_learner_that_prefers_one_shard_gets_the_target_all_the_same() -> None:
    stores = open_shards(config(64.0, shards=2))
    producers, fresh, asked = Producers(stores), 0, 0
    for _ in range(150):
        missing = BATCH
        while missing:
            producers.push()
            asked += 1
            reply = stores[asked % 5 == 0].sample(min(missing, 8))
            if reply is not None:
                missing, fresh = missing - reply.batch.size, fresh + int(reply.fresh.sum())
    assert fresh / 150 == pytest.approx(64.0, rel=0.1)


def test_unused_windows_are_given_without_credit_only_while_there_are_no_others() -> None:
    (store,) = open_shards(config(16.0))
    producers = Producers([store])
    producers.push()
    waiting = store.stats().pairs_held
    assert 400 <= waiting < 480
    first = store.sample(4)
    assert first is not None
    assert np.all(first.fresh == first.batch.used_per_window)  # nothing was used before, so nothing else can be given
    fresh = learn([store], producers, 100, np.random.default_rng(0))
    assert np.cumsum(fresh)[9] > 1.5 * 10 * 16  # the first pass of what was there, on credit
    assert 0 in fresh[:50]  # which is paid back
    assert sum(fresh) + int(first.fresh.sum()) == pytest.approx((100 + 4 / BATCH) * 16, abs=2 * WINDOW.pairs)


def test_credit_and_debt_have_their_limits() -> None:
    rate = FreshRate(per_window=4.0, buffer_pairs=100, most=32.0)
    assert rate.due
    for _ in range(7):
        rate.deliver(0)
    assert (rate.credit, rate.overdue) == (28.0, False)
    rate.deliver(0)
    assert rate.overdue
    for _ in range(1000):
        rate.deliver(16)
    assert rate.credit == -400.0
    assert not rate.due


def test_the_rate_goes_on_after_a_restore_where_it_was(tmp_path: Path) -> None:
    (store,) = open_shards(config(64.0))
    learn([store], Producers([store]), 7, np.random.default_rng(1))
    save(store, tmp_path / "shard.npz")
    (other,) = open_shards(config(64.0))
    assert restore(other, tmp_path / "shard.npz")
    assert other.choice.unused_pairs == store.choice.unused_pairs > 0
    delivered = 0
    while (one := store.sample(5)) is not None:  # until what is unused has run out
        two = other.sample(5)
        assert two is not None
        delivered += one.batch.size
        np.testing.assert_array_equal(one.fresh, two.fresh)
        assert one.batch.recipe_id == two.batch.recipe_id
    assert other.sample(5) is None
    assert delivered > 100


def test_the_bound_holds_at_the_smallest_target_through_deaths(tmp_path: Path) -> None:
    settings = config(BATCH * 16 / 4, max_reuse=4, min_size_pairs=100)
    uses: Counter[tuple[str, int]] = Counter()
    for _ in range(5):
        store = ShardStore(settings.share(WINDOW), WINDOW, ledger=PassLedger(tmp_path / "ledger.jsonl"), seed=3)
        seed = 0
        for _ in range(60):
            while store.append(fake_episode(seed, 50, 2, 3)) is not AppendStatus.RETRY and seed < 100:
                seed += 1
            reply = store.sample(BATCH)
            if reply is None:
                break
            b, j, n = np.nonzero(reply.batch.action_mask)
            steps = reply.batch.start[b] + j * WINDOW.tau + n  # chunk = tau: every pair stands in one chunk
            uses.update((reply.batch.recipe_id[row], int(step)) for row, step in zip(b, steps, strict=True))
    assert max(uses.values()) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"fresh_per_step": 12.0},
            r"replay\.fresh_per_step=12\.0: expected 12\.8 to 512; .* most replay\.max_reuse=40",
        ),
        ({"fresh_per_step": 600.0}, r"expected 12\.8 to 512"),
        ({"fresh_per_step": 0.0}, r"replay\.fresh_per_step=0\.0: expected more than 0"),
        ({"fresh_per_step": 64.0, "mode": "static"}, r"expected none with replay\.mode=static"),
        ({"fresh_per_step": 64.0, "samples_per_insert": 8.0}, r"expected none with replay\.samples_per_insert=8\.0"),
        ({"fresh_per_step": 64.0, "episodes_per_second": 1.0}, r"expected none with replay\.episodes_per_second=1\.0"),
        ({"fresh_per_step": 64.0, "step_windows": None}, r"expected replay\.step_windows with it"),
        ({"fresh_per_step": None, "episodes_per_second": -1.0}, r"replay\.episodes_per_second=-1\.0: expected more"),
    ],
)
def test_targets_that_cannot_be_met_are_refused_with_the_numbers(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes).share(WINDOW)  # type: ignore[arg-type]


@pytest.mark.parametrize("shards", [1, 4])
def test_episodes_enter_at_the_rate_that_is_set(shards: int) -> None:
    now = [1000.0]
    settings = config(None, episodes_per_second=2.0, shards=shards)
    stores = [ShardStore(settings.share(WINDOW), WINDOW, seed=1, shard=i, clock=lambda: now[0]) for i in range(shards)]
    waiting = [fake_episode(seed, 20, 2, 3) for seed in range(3)]  # three producers, each with one finished episode
    entered, seed = 0, 3
    while now[0] < 1300.0:
        for place, episode in enumerate(waiting):
            if stores[route(episode.recipe.id, shards)].append(episode) is AppendStatus.ACCEPTED:
                entered, seed = entered + 1, seed + 1
                waiting[place] = fake_episode(seed, 20, 2, 3)
        now[0] += 0.05
    assert entered / 300.0 == pytest.approx(2.0, rel=0.1)


def test_a_producer_waits_for_its_turn_by_the_clock_and_no_longer() -> None:
    (store,) = open_shards(config(None, episodes_per_second=4.0))
    assert store.append(fake_episode(0, 40, 2, 3)) is AppendStatus.ACCEPTED
    assert store.append(fake_episode(1, 40, 2, 3)) is AppendStatus.RETRY
    began = time.monotonic()
    assert not store.wait_insert(0.05)
    assert store.wait_insert(5.0)
    assert 0.1 < time.monotonic() - began < 1.0
    assert store.append(fake_episode(1, 40, 2, 3)) is AppendStatus.ACCEPTED


def test_a_producer_that_waits_for_the_fresh_rate_is_let_in_once_enough_was_used() -> None:
    (store,) = open_shards(config(512.0))
    producers = Producers([store])
    producers.push()
    assert not store.wait_insert(0.05)
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(store.wait_insert(10.0)))
    thread.start()
    while store.choice.enough:
        store.sample(4)
    thread.join()
    assert woken == [True]
