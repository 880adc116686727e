"""The pool over fake simulators that crash, hang, raise or refuse to start when told to."""

import os
import time
from typing import Any

import pytest
import ray

from embodichain.actors.pool import ActorPool, PoolConfig
from embodichain.actors.worker import WorkReport
from embodichain.contracts import Recipe


class FakeSim:
    """Does what the recipe's task says."""

    def __init__(self, start_fails: bool = False) -> None:
        if start_fails:
            raise OSError("no simulator here")

    def ready(self) -> int:
        return os.getpid()

    def produce(self, recipe: Recipe) -> WorkReport:
        if recipe.task == "crash":
            os._exit(1)
        if recipe.task == "hang":
            time.sleep(3600)
        if recipe.task == "raise":
            raise ArithmeticError("exploded")
        rejected = ("no_success",) if recipe.task == "reject" else ()
        return WorkReport(recipe=recipe, accepted=not rejected, reasons=rejected, pairs=10, busy_s=0.5, idle_s=0.5)


def run_pool(tasks: list[str], *, until: int, seconds: float = 60.0, start_fails: bool = False, **settings):
    """Feed `tasks`, then good recipes, until `until` episodes were generated."""
    queue = list(tasks)

    def next_recipe() -> Recipe:
        return Recipe(task=queue.pop(0) if queue else "good", seed=len(queue))

    def start() -> Any:
        return ray.remote(num_cpus=0.1)(FakeSim).remote(start_fails)

    config = PoolConfig(**{"count": 1, "cpus": 0.1, **settings})
    pool = ActorPool(config, start, next_recipe, lambda: True)
    try:
        stop = time.monotonic() + seconds
        while pool.counts.generated < until:
            assert time.monotonic() < stop, f"stuck: {pool.counts}"
            pool.poll(0.05)
        return pool.counts
    finally:
        pool.stop()


def test_reports_are_counted_by_reason_and_time(ray_cluster):
    counts = run_pool(["reject", "good", "reject"], until=6)
    assert counts.rejected["no_success"] == 2
    assert counts.accepted == counts.generated - 2
    assert counts.accepted_pairs == 10 * counts.accepted
    assert counts.idle_fraction == pytest.approx(0.5)
    assert counts.tasks["reject"] == {"generated": 2, "accepted": 0, "rejected": {"no_success": 2}}


def test_a_dead_simulator_is_replaced_and_its_recovery_time_reported(ray_cluster):
    counts = run_pool(["good", "crash"], until=4)
    assert counts.faults == {"actor_died": 1}
    assert len(counts.recovery_s["actor_died"]) == 1


def test_a_hung_simulator_is_killed_and_replaced(ray_cluster):
    counts = run_pool(["good", "hang"], until=3, hang_timeout_s=1.0)
    assert counts.faults["actor_hung"] == 1


def test_an_error_rejects_the_recipe_under_its_name_and_keeps_the_process(ray_cluster):
    counts = run_pool(["raise"], until=3)
    assert counts.rejected == {"error_ArithmeticError": 1}
    assert not counts.faults


def test_processes_are_recycled_before_they_grow_old(ray_cluster):
    counts = run_pool([], until=9, episodes_per_process=3)
    assert counts.recycled >= 2
    assert not counts.faults


def test_simulators_that_never_start_end_the_run_with_their_error(ray_cluster):
    with pytest.raises(RuntimeError, match="no simulator here"):
        run_pool([], until=1, start_fails=True, max_start_failures=2)


@pytest.mark.parametrize(
    ("key", "value"), [("count", 0), ("cpus", 0.0), ("episodes_per_process", 0), ("replay_fraction", 1.5)]
)
def test_impossible_settings_name_the_key(key, value):
    with pytest.raises(ValueError, match=rf"actors\.{key}={value}"):
        PoolConfig(**{key: value})
