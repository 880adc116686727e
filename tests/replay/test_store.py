from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from embodichain.contracts import Batch, WindowSpec
from embodichain.replay import AppendStatus, ReplayConfig, ReplayStats, ShardStore, fake_episode

WINDOW = WindowSpec(frames=3, tau=4, chunk=8, burn_in=1)


def make_store(**changes: object) -> ShardStore:
    defaults: dict[str, object] = {"shards": 1, "capacity_pairs": 100_000, "min_size_pairs": 1, "max_reuse": 3}
    return ShardStore(ReplayConfig(**(defaults | changes)).share(WINDOW), WINDOW, seed=7)  # type: ignore[arg-type]


def recount(batch: Batch, window: WindowSpec) -> list[list[tuple[str, int]]]:
    """The pairs under each window's loss, from its masks alone."""
    windows = []
    for b in range(batch.size):
        j, n = np.nonzero(batch.action_mask[b])
        steps = batch.start[b] + (j - window.burn_in) * window.tau + n
        windows.append([(batch.recipe_id[b], int(step)) for step in sorted(set(steps.tolist()))])
    return windows


def drain(store: ShardStore, windows: int = 16) -> list[Batch]:
    batches = []
    while (reply := store.sample(windows)) is not None:
        batches.append(reply.batch)
    return batches


def test_every_pair_is_used_exactly_max_reuse_times_and_never_more() -> None:
    store = make_store()
    episodes = [fake_episode(i, 5 + 13 * i, 2, 3) for i in range(8)]
    assert {store.append(episode) for episode in episodes} == {AppendStatus.ACCEPTED}
    uses = Counter(pair for batch in drain(store) for window in recount(batch, WINDOW) for pair in window)
    assert uses == {(e.recipe.id, t): 3 for e in episodes for t in range(e.pairs)}
    stats, pairs = store.stats(), sum(e.pairs for e in episodes)
    assert (stats.reuse_max, stats.reuse_mean, stats.exhausted_pairs, stats.uses_left) == (3, 3.0, pairs, 0)
    assert (stats.episodes_held, stats.pairs_held, stats.uses) == (0, 0, 3 * pairs)


def test_mistakes_are_read_but_never_used_and_the_bound_counts_the_rest() -> None:
    store = make_store(max_reuse=3)
    episodes = [fake_episode(i, 20 + 13 * i, 2, 3, mistakes=0.3) for i in range(6)]
    long_mistake = fake_episode(6, 90, 2, 3)
    assert long_mistake.label_valid is not None
    long_mistake.label_valid[:80] = False
    episodes.append(long_mistake)
    assert {store.append(episode) for episode in episodes} == {AppendStatus.ACCEPTED}
    labelled = {(e.recipe.id, int(t)) for e in episodes for t in np.flatnonzero(np.asarray(e.label_valid))}
    uses = Counter[tuple[str, int]]()
    for batch in drain(store):
        tiles = recount(batch, WINDOW)
        for tile, used in zip(tiles, batch.used_per_window, strict=True):
            assert used == len(tile) > 0
        uses.update(pair for tile in tiles for pair in tile)
    assert uses == dict.fromkeys(labelled, 3)
    stats = store.stats()
    assert (stats.uses, stats.unique_pairs, stats.pairs_inserted) == (3 * len(labelled), len(labelled), len(labelled))
    assert (stats.reuse_max, stats.exhausted_pairs, stats.uses_left, stats.pairs_held) == (3, len(labelled), 0, 0)


def test_an_episode_of_mistakes_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="label_valid"):
        make_store().append(replace(fake_episode(0, 40, 2, 3), label_valid=np.zeros(40, dtype=bool)))


def test_accounting_equals_a_brute_force_recount_at_every_step() -> None:
    rng, store, uses = np.random.default_rng(3), make_store(max_reuse=4, capacity_pairs=900), Counter[tuple[str, int]]()
    inserted: dict[str, int] = {}
    fresh = 0
    for step in range(150):
        if rng.random() < 0.5:
            episode = fake_episode(step, int(rng.integers(4, 80)), 2, 3, task=f"task_{step % 2}")
            assert store.append(episode) is AppendStatus.ACCEPTED
            inserted[episode.recipe.id] = episode.pairs
        reply = store.sample(int(rng.integers(1, 9)))
        if reply is None:
            continue
        for window, first, used in zip(
            recount(reply.batch, WINDOW), reply.fresh, reply.batch.used_per_window, strict=True
        ):
            assert first == sum(uses[pair] == 0 for pair in window)
            assert used == len(window)
            uses.update(window)
        fresh += int(reply.fresh.sum())
        stats = store.stats()
        assert (stats.uses, stats.unique_pairs) == (uses.total(), len(uses))
    histogram = Counter(uses[recipe, t] for recipe, length in inserted.items() for t in range(length))
    assert {c: n for c, n in enumerate(stats.reuse_histogram) if n} == dict(histogram)
    assert stats.reuse_max == max(uses.values()) <= 4
    assert stats.evicted_pairs > 0
    assert sum(task.fresh for task in stats.tasks.values()) == stats.unique_pairs
    assert sum(task.uses for task in stats.tasks.values()) == stats.uses
    assert fresh == len(uses)
    both = ReplayStats.merge([stats, stats])
    assert (both.uses, both.reuse_max, both.reuse_mean) == (2 * stats.uses, stats.reuse_max, stats.reuse_mean)


def test_an_append_is_idempotent_even_after_the_episode_has_left() -> None:
    store = make_store(max_reuse=1)
    episode = fake_episode(0, 20)
    assert store.append(episode) is AppendStatus.ACCEPTED
    assert store.append(episode) is AppendStatus.DUPLICATE
    drain(store)
    assert store.append(episode) is AppendStatus.DUPLICATE
    assert (store.stats().pairs_inserted, store.stats().duplicates) == (20, 2)


def test_a_full_store_lets_the_oldest_go_and_counts_what_was_never_used() -> None:
    store = make_store(capacity_pairs=100)
    for seed in range(4):
        store.append(fake_episode(seed, 30))
    stats = store.stats()
    assert (stats.pairs_held, stats.evicted_pairs, stats.evicted_unused_pairs) == (90, 30, 30)
    assert fake_episode(0, 30).recipe.id not in store.held
    with pytest.raises(ValueError, match="101 steps, expected at most 100"):
        store.append(fake_episode(9, 101))


def test_a_batch_is_spread_over_episodes_and_the_freshest_takes_part() -> None:
    store = make_store(max_reuse=1000)
    for seed in range(20):
        store.append(fake_episode(seed, 100 if seed else 20))
    for _ in range(30):
        reply = store.sample(20)
        assert reply is not None
        assert len(set(reply.batch.recipe_id)) == 20
    newest = fake_episode(99, 50)
    store.append(newest)
    seen = Counter(recipe for _ in range(210) for recipe in store.sample(10).batch.recipe_id)  # type: ignore[union-attr]
    assert 60 < seen[newest.recipe.id] < 140
    reply = store.sample(50)
    assert reply is not None
    assert set(Counter(reply.batch.recipe_id).values()) <= {2, 3}


def test_static_mode_is_unbounded_but_counted_and_keeps_its_set() -> None:
    store = make_store(mode="static", max_reuse=1, capacity_pairs=50)
    assert store.append(fake_episode(0, 40)) is AppendStatus.ACCEPTED
    assert store.append(fake_episode(1, 40)) is AppendStatus.FULL
    for _ in range(100):
        store.sample(4)
    stats = store.stats()
    assert stats.episodes_held == 1
    assert (stats.reuse_mean, stats.unique_pairs) == (pytest.approx(stats.uses / 40), 40)
    assert stats.reuse_max > 50


def test_the_limiter_stops_both_sides() -> None:
    store = make_store(max_reuse=10, samples_per_insert=2.0, min_size_pairs=50, error_buffer=40.0)
    seed = 0
    while store.append(fake_episode(seed, 30)) is AppendStatus.ACCEPTED:
        seed += 1
    assert not store.wait_insert(0.01)
    batches = drain(store)
    assert not store.wait_sample(0.01)
    assert store.append(fake_episode(seed, 30)) is AppendStatus.ACCEPTED
    used = sum(batch.pair_uses for batch in batches)
    assert store.limiter.min_diff <= seed * 30 * 2.0 - used < store.limiter.min_diff + WINDOW.pairs


def test_a_waiting_sample_is_woken_by_an_append() -> None:
    store = make_store(min_size_pairs=30)
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(store.wait_sample(5.0)))
    thread.start()
    store.append(fake_episode(0, 20))
    assert store.sample(1) is None
    store.append(fake_episode(1, 20))
    thread.join()
    assert woken == [True]


def test_threads_together_never_break_the_bound() -> None:
    store, batches = make_store(max_reuse=5), []
    producers = [
        threading.Thread(target=lambda k=k: [store.append(fake_episode(100 * k + i, 40, 2, 3)) for i in range(20)])
        for k in range(3)
    ]

    def consume() -> None:
        while store.wait_sample(0.5):
            reply = store.sample(8)
            if reply is not None:
                batches.append(reply.batch)

    consumers = [threading.Thread(target=consume) for _ in range(3)]
    for thread in producers + consumers:
        thread.start()
    for thread in producers + consumers:
        thread.join()
    uses = Counter(pair for batch in batches for window in recount(batch, WINDOW) for pair in window)
    assert set(uses.values()) == {5}
    assert len(uses) == 60 * 40 == store.stats().unique_pairs


def test_episodes_that_do_not_fit_are_refused_by_field() -> None:
    store = make_store()
    store.append(fake_episode(0, 20, 4, 41))
    good = fake_episode(1, 20, 4, 41)
    for bad, field in [
        (fake_episode(1, 20, 5, 41), "episode.tokens="),
        (replace(good, encoder_id="other"), "episode.encoder_id='other'"),
        (replace(good, control_hz=10.0), "episode.control_hz=10.0"),
        (replace(good, tokens=None), "episode.tokens: none"),
        (replace(good, action=good.action.astype(np.float64)), "episode.action"),
    ]:
        with pytest.raises(ValueError, match=field):
            store.append(bad)
    assert store.stats().episodes_inserted == 1
