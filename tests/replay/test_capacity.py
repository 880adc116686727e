from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from embodichain.contracts import WindowSpec
from embodichain.replay import AppendStatus, ReplayConfig, ShardStore, fake_episode
from embodichain.replay.gather import prepare

WINDOW = WindowSpec(frames=3, tau=4, chunk=8)
SIZE = prepare(fake_episode(0, 50, 2, 3), 0.0).nbytes()


def make_store(**changes: object) -> ShardStore:
    defaults: dict[str, object] = {"shards": 1, "capacity_pairs": 100_000, "min_size_pairs": 1, "max_reuse": 3}
    return ShardStore(ReplayConfig(**(defaults | changes)).share(WINDOW), WINDOW, seed=7)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"capacity_bytes": 4 * SIZE + 7}, {"capacity_episodes": 4}])
def test_the_oldest_leave_when_bytes_or_episodes_run_out(changes: dict[str, object]) -> None:
    store, episodes = make_store(**changes), [fake_episode(i, 50, 2, 3) for i in range(9)]
    for count, episode in enumerate(episodes, start=1):
        assert store.append(episode) is AppendStatus.ACCEPTED
        held = sum(h.source.nbytes() for h in store.held.values())
        assert store.stats().bytes_held == held == min(count, 4) * SIZE
    assert list(store.held) == [episode.recipe.id for episode in episodes[-4:]]
    assert store.stats().evicted_unused_pairs == 5 * 50


@pytest.mark.parametrize("changes", [{"capacity_bytes": 4 * SIZE + 7}, {"capacity_episodes": 4}])
def test_a_static_set_is_complete_at_its_first_refusal_and_stays_as_it_is(changes: dict[str, object]) -> None:
    store = make_store(mode="static", **changes)
    status = [store.append(fake_episode(i, 50, 2, 3)) for i in range(6)]
    assert status == [AppendStatus.ACCEPTED] * 4 + [AppendStatus.FULL] * 2
    assert store.append(fake_episode(9, 5, 2, 3)) is AppendStatus.FULL  # it would fit, but the set is fixed
    assert store.append(fake_episode(0, 50, 2, 3)) is AppendStatus.DUPLICATE
    assert (store.stats().complete_sets, store.stats().episodes_held) == (1, 4)


@pytest.mark.parametrize("mode", ["stream", "static"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"capacity_bytes": 2 * SIZE, "min_size_pairs": 120}, r"replay\.capacity_bytes=\d+ in a shard: expected more"),
        ({"capacity_episodes": 2, "min_size_pairs": 120}, r"replay\.capacity_episodes=2 in a shard: expected more"),
        ({"capacity_bytes": SIZE - 1}, r"replay\.capacity_bytes=\d+ in a shard: expected more"),
    ],
)
def test_a_capacity_from_which_nothing_could_ever_be_sampled_is_refused(
    mode: str, changes: dict[str, object], message: str
) -> None:
    store = make_store(mode=mode, **changes)
    refused = []
    for seed in range(4):
        try:
            store.append(fake_episode(seed, 50, 2, 3))
        except ValueError as error:
            refused.append(str(error))
    assert refused
    assert re.match(message, refused[0])


def test_shards_share_every_capacity() -> None:
    config = ReplayConfig(shards=4, capacity_bytes=1000, capacity_episodes=9, episodes_per_second=2.0)
    share = config.share(WINDOW)
    assert (share.capacity_bytes, share.capacity_episodes, share.episodes_per_second) == (250, 2, 0.5)
    with pytest.raises(ValueError, match=r"replay\.capacity_episodes=3: expected at least one in each of 4 shards"):
        ReplayConfig(shards=4, capacity_episodes=3)


def test_an_episode_without_a_segment_change_gives_a_boundary_replay_nothing() -> None:
    window = replace(WINDOW, mode="boundary")
    store = ShardStore(ReplayConfig(shards=1, min_size_pairs=1).share(window), window)
    assert store.append(fake_episode(0, 50, 2, 3)) is AppendStatus.ACCEPTED
    assert store.append(fake_episode(0, 50, 2, 3)) is AppendStatus.DUPLICATE
    stats = store.stats()
    assert (stats.unusable_episodes, stats.episodes_held, stats.pairs_inserted) == (1, 0, 0)
    assert not store.wait_sample(0.0)
    assert store.append(fake_episode(1, 50, 2, 3, changes=[25])) is AppendStatus.ACCEPTED
    reply = store.sample(1)
    assert reply is not None
    assert (reply.batch.start.tolist(), reply.batch.used_per_window.tolist()) == ([19], [12])
    assert np.all(reply.fresh == 12)
