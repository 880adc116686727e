"""The queues of `bench scale` against what can be worked out by hand."""

from dataclasses import replace

import pytest

from benchmarks.scale_model import Cluster, Costs, Station, Stream

FREE = Costs(
    round_trip_s=1e-6,
    recorder_call_s=0.0,
    driver_recipe_s=0.0,
    driver_slot_s=1e-5,
    append_s=0.0,
    sample_s=0.0,
    window_s=0.0,
    client_call_s=0.0,
    client_window_s=0.0,
    episode_bytes=1.0,
    window_bytes=1.0,
)
SMALL = Cluster(simulators=20, shards=4, shards_per_node=2, episode_s=0.5, steps_per_s=10.0, batch_windows=8)


def rate(costs: Costs, cluster: Cluster = SMALL, seconds: float = 60.0) -> float:
    return Stream(cluster, costs, seed=1).run(seconds).episodes / seconds


def test_a_queue_serves_in_order_and_counts_work_and_waiting():
    station = Station()
    assert [station.serve(at, 2.0) for at in (0.0, 1.0, 10.0)] == [2.0, 4.0, 12.0]
    assert (station.busy_s, station.waited_s, station.served) == (6.0, 1.0, 3)


def test_where_nothing_costs_anything_simulators_never_wait():
    assert rate(FREE) == pytest.approx(20 / 0.5, rel=0.03)


@pytest.mark.parametrize(
    ("costs", "most"),
    [
        ({"driver_recipe_s": 0.1}, 10.0),
        ({"recorder_call_s": 0.05}, 10.0),  # two calls per recipe
        ({"append_s": 0.2}, 20.0),  # four shards
        ({"episode_bytes": 1e9}, 2 * Cluster.network_bytes_s / 1e9),  # two cards
    ],
)
def test_the_slowest_part_sets_the_rate(costs, most):
    assert rate(replace(FREE, **costs), seconds=120.0) == pytest.approx(most, rel=0.08)


def test_a_learner_that_asks_many_shards_is_held_back_by_its_own_calls():
    cluster = replace(SMALL, shards=16, steps_per_s=100.0)
    stream = Stream(cluster, replace(FREE, client_call_s=0.01)).run(20.0)
    assert stream.part_windows == 2  # about four batches of 8 windows are under way at 16 shards
    assert stream.steps / 20.0 == pytest.approx(25.0, rel=0.02)  # four requests a step, 10 ms each
    few = Stream(replace(cluster, shards=4), replace(FREE, client_call_s=0.01)).run(20.0)
    assert few.steps / 20.0 == pytest.approx(100.0, rel=0.02)  # one, for a whole batch


def test_requests_are_spread_over_the_shards_and_bring_what_the_steps_take():
    stream = Stream(replace(SMALL, shards=12), replace(FREE, window_s=1e-3)).run(20.0)
    assert stream.part_windows == 3
    brought = sum(shard.busy_s for shard in stream.shards) / 1e-3
    assert 0 <= brought - 8 * stream.steps <= 3
    asked = [round(shard.busy_s / 3e-3) for shard in stream.shards]
    assert max(asked) - min(asked) <= 1


def test_a_card_takes_as_much_in_as_it_gives_out():
    big = replace(FREE, episode_bytes=0.05 * Cluster.network_bytes_s, window_bytes=0.05 * Cluster.network_bytes_s / 8)
    assert rate(big) == pytest.approx(40.0, rel=0.08)  # two cards, 20 episodes a second each
    assert rate(replace(big, window_bytes=1.0)) == pytest.approx(40.0, rel=0.08)
