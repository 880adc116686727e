from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from embodichain.contracts import Batch, WindowSpec
from embodichain.replay import ReplayConfig, ShardStore, fake_episode
from embodichain.replay.selectors import SELECTORS, Prioritised, Uniform, make_selector

WINDOW = WindowSpec(frames=3, tau=4, chunk=8)


def make_store(**changes: object) -> ShardStore:
    defaults: dict[str, object] = {"shards": 1, "capacity_pairs": 100_000, "min_size_pairs": 1, "max_reuse": 3}
    return ShardStore(ReplayConfig(**(defaults | changes)).share(WINDOW), WINDOW, seed=7)  # type: ignore[arg-type]


def uses_of(batch: Batch) -> list[tuple[str, int]]:
    b, j, n = np.nonzero(batch.action_mask)
    return [*{(batch.recipe_id[row], int(batch.start[row] + k)) for row, k in zip(b, j * WINDOW.tau + n, strict=True)}]


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("mode", ["episode", "segment", "boundary"])
def test_the_bound_holds_exactly_under_every_selector_and_window_mode(selector: str, mode: str) -> None:
    window = WindowSpec(frames=3, tau=4, chunk=8, mode=mode)
    config = ReplayConfig(shards=1, capacity_pairs=100_000, min_size_pairs=1, max_reuse=3, selector=selector)
    store, rng = ShardStore(config.share(window), window, seed=1), np.random.default_rng(0)
    uses: Counter[tuple[str, int]] = Counter()
    episodes = [fake_episode(i, 20 + 9 * i, 2, 3, changes=[7, 11 + i], mistakes=0.1 * (i % 3)) for i in range(8)]
    expected: dict[tuple[str, int], int] = {}
    for episode in episodes:
        store.append(episode)
        held = store.held[episode.recipe.id]
        expected |= {(episode.recipe.id, int(t)): 3 for t in np.flatnonzero(held.source.label_valid)}
    while (reply := store.sample(1)) is not None:  # one window a call, so a set is enough to find its pairs
        uses.update(uses_of(reply.batch))
        if store.held and selector == "prioritised":
            store.update_priorities({str(rng.choice(list(store.held))): float(rng.random())})
    assert uses == expected
    stats = store.stats()
    assert (stats.reuse_max, stats.uses_left, stats.pairs_held) == (3, 0, 0)
    assert stats.uses == 3 * len(expected) == 3 * stats.unique_pairs == 3 * stats.pairs_inserted


def test_fifo_gives_the_oldest_until_it_is_used_up_and_lifo_the_newest() -> None:
    for selector, order in (("fifo", [0, 1, 2]), ("lifo", [2, 1, 0])):
        store, episodes = make_store(selector=selector), [fake_episode(i, 30, 2, 3) for i in range(3)]
        for episode in episodes:
            store.append(episode)
        names = [name for _ in range(60) if (reply := store.sample(2)) for name in reply.batch.recipe_id]
        runs = [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]
        assert runs == [episodes[i].recipe.id for i in order]


@pytest.mark.parametrize(("exponent", "expected"), [(1.0, 0.8), (0.5, 2 / 3), (0.0, 0.5)])
def test_priorities_set_how_often_an_episode_is_chosen(exponent: float, expected: float) -> None:
    store = make_store(selector="prioritised", priority_exponent=exponent, max_reuse=10_000)
    few, many, never = (fake_episode(i, 60, 2, 3) for i in range(3))
    for episode in (few, many, never):
        store.append(episode)
    priorities = {few.recipe.id: 1.0, many.recipe.id: 4.0, never.recipe.id: 0.0, "gone": 1.0}
    assert store.update_priorities(priorities) == 3
    seen = Counter(name for _ in range(200) for name in store.sample(20).batch.recipe_id)  # type: ignore[union-attr]
    assert seen[many.recipe.id] / 4000 == pytest.approx(expected, abs=0.03)
    assert seen[never.recipe.id] == 0
    newest = fake_episode(3, 60, 2, 3)
    store.append(newest)
    assert store.held[newest.recipe.id].priority == 4.0  # a newcomer is as urgent as the most urgent
    store.update_priorities(dict.fromkeys(store.held, 0.0))
    seen = Counter(name for _ in range(200) for name in store.sample(20).batch.recipe_id)  # type: ignore[union-attr]
    assert min(seen.values()) > 800


def test_impossible_priorities_change_nothing() -> None:
    store, episode = make_store(selector="prioritised"), fake_episode(0, 30, 2, 3)
    store.append(episode)
    for bad in (-1.0, float("nan"), float("inf"), 1e13):
        with pytest.raises(ValueError, match="priority of x="):
            store.update_priorities({episode.recipe.id: 9.0, "x": bad})
    assert store.held[episode.recipe.id].priority == 1.0


@pytest.mark.parametrize("make", [Uniform, lambda: Prioritised(0.7)])
def test_keys_that_go_never_come_again_and_priorities_follow_theirs(make: type[Uniform]) -> None:
    rng, selector = np.random.default_rng(0), make()
    there: dict[str, float] = {}
    for step in range(600):
        if rng.random() < 0.6 or not there:
            there[str(step)] = float(rng.random())
            selector.add(str(step), there[str(step)])
        else:
            gone = str(rng.choice(list(there)))
            del there[gone]
            selector.remove(gone)
        assert set(selector.keys()) == there.keys()
        assert set(selector.round(20, rng)) <= there.keys()
        if isinstance(selector, Prioritised):
            weights = dict(zip(selector.keys(), selector._weights, strict=False))
            assert weights == pytest.approx({key: value**0.7 for key, value in there.items()})


def test_an_unknown_selector_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"replay\.selector='heap': expected one of uniform, fifo"):
        make_selector("heap")
