"""Every fault of `embodichain bench chaos`, once or twice, with the bench's own code: nothing it promises is broken."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.chaos import disks, learner, runs, services, shards, simulators
from benchmarks.chaos.outcome import Outcome, Tick


def inject(fault: Callable[[int, Tick], Outcome], times: int) -> Outcome:
    """So many injections; all of them recovered from, and no promise broken."""
    ticks: list[None] = []
    outcome = fault(times, lambda: ticks.append(None))
    assert outcome.broken == []
    assert len(ticks) == len(outcome.recovery_s) == times
    return outcome


@pytest.mark.usefixtures("ray_cluster")
def test_a_simulator_killed_in_mid_episode_costs_that_recipe_and_no_part_of_it_is_sampled():
    outcome = inject(simulators.killed, 1)
    assert outcome.lost["recipes quarantined"] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_stopped_simulator_is_replaced_after_the_hang_timeout():
    outcome = inject(simulators.hung, 1)
    assert outcome.recovery_s[0] > simulators.HANG_TIMEOUT_S
    assert outcome.lost["recipes quarantined"] == 1


@pytest.mark.usefixtures("ray_cluster")
def test_windows_of_a_killed_shard_are_whole_and_within_the_bound():
    outcome = inject(shards.killed, 2)
    assert outcome.lost["episodes held"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_evaluator_costs_no_seed_and_changes_no_score():
    outcome = inject(services.evaluator_killed, 1)
    assert outcome.lost == {"seeds": 0, "blocks given up": 0}


@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_logger_loses_seconds_of_metrics_at_most():
    outcome = inject(services.logger_killed, 1)
    ((_, lost),) = outcome.lost.items()
    assert lost <= services.METRICS_BETWEEN


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_rank_sends_the_learner_back_to_its_last_checkpoint_at_most():
    inject(learner.killed, 1)


def test_a_disk_that_fills_up_ends_archiving_and_nothing_else():
    try:
        inject(disks.full, 2)
    except RuntimeError as error:
        pytest.skip(str(error))


def test_a_rotten_file_costs_its_episode_and_is_named():
    assert inject(disks.corrupted, 5).lost == {"episodes": 5}


@pytest.mark.slow
def test_a_killed_driver_leaves_nothing_running_and_is_resumed_from_its_last_checkpoint():
    inject(runs.driver_killed, 1)


def test_a_start_that_goes_back_beyond_the_last_checkpoint_breaks_a_promise(tmp_path: Path):
    logged = [("learner/loss_action", 1.0, 70), ("faults/total", 3.1, 0), ("learner/loss_action", 4.0, 70)]
    logged += [("learner/loss_video", 7.0, 60), ("learner/loss_video", 8.0, 80)]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("create table metrics (key, timestamp, step)")
        rows = [(key, 1000 * seconds, step) for key, seconds, step in logged]
        database.executemany("insert into metrics values (?, ?, ?)", rows)
    resumed = [(3.0, 64), (6.0, 64), (9.0, 64)]
    assert runs.gone_back(tmp_path / "mlflow.db", resumed) == ["step 60 was made again, checkpoint 64 was whole"]
