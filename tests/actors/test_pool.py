"""The pool over fake simulators that crash, hang, raise or refuse to start when told to."""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from embodichain.actors.flight import KEPT_MARKS, FlightRecorder, RemoteMarks, start_recorder
from embodichain.actors.pool import ActorPool, PoolConfig, PoolCounts
from embodichain.actors.quarantine import Quarantine
from embodichain.actors.worker import WorkReport
from embodichain.contracts import Recipe


class FakeSim:
    """Does what the recipe's task says."""

    def __init__(self, recorder: Any, start_fails: bool = False) -> None:
        if start_fails:
            raise OSError("no simulator here")
        self._marks = RemoteMarks(recorder)

    def ready(self) -> int:
        return os.getpid()

    def produce(self, recipe: Recipe) -> WorkReport:
        self._marks.begin(recipe.id)
        try:
            return self._make(recipe)
        finally:
            self._marks.end(recipe.id)
            if recipe.task == "wait":
                time.sleep(2.0)

    def _make(self, recipe: Recipe) -> WorkReport:
        if recipe.task == "crash":
            os._exit(1)
        if recipe.task == "hang":
            time.sleep(3600)
        if recipe.task == "raise":
            raise ArithmeticError("exploded")
        rejected = ("no_success",) if recipe.task == "reject" else ()
        return WorkReport(recipe=recipe, accepted=not rejected, reasons=rejected, pairs=10, busy_s=0.5, idle_s=0.5)


@pytest.fixture(scope="module")
def recorder(ray_cluster: None) -> Iterator[Any]:
    """One flight recorder for all pools of this file."""
    actor = start_recorder()
    yield actor
    ray.kill(actor)


def run_pool(
    recorder: Any,
    tasks: list[str],
    *,
    until: int,
    seconds: float = 60.0,
    start_fails: bool = False,
    quarantine: Path | None = None,
    replay_open: bool = True,
    **settings: Any,
) -> PoolCounts:
    """Feed `tasks`, then good recipes, until `until` episodes were generated. Recipe i has seed i."""
    seeds, domain = iter(range(10**6)), str(quarantine or time.monotonic())  # no recipe of one pool is another's

    def next_recipe() -> Recipe:
        seed = next(seeds)
        return Recipe(task=tasks[seed] if seed < len(tasks) else "good", seed=seed, domain=domain)

    def start() -> Any:
        return ray.remote(num_cpus=0.1)(FakeSim).remote(recorder, start_fails)

    config = PoolConfig(**{"count": 1, "cpus": 0.1, **settings})
    with tempfile.TemporaryDirectory() as folder:
        kept = Quarantine(quarantine or Path(folder) / "quarantine.jsonl")
        pool = ActorPool(config, start, next_recipe, lambda: replay_open, recorder, kept)
        try:
            stop = time.monotonic() + seconds
            while pool.counts.generated < until:
                assert time.monotonic() < stop, f"stuck: {pool.counts}"
                pool.poll(0.05)
            return pool.counts
        finally:
            pool.stop()


def test_reports_are_counted_by_reason_and_time(recorder):
    counts = run_pool(recorder, ["reject", "good", "reject"], until=6)
    assert counts.rejected["no_success"] == 2
    assert counts.accepted == counts.generated - 2
    assert counts.accepted_pairs == 10 * counts.accepted
    assert counts.idle_fraction == pytest.approx(0.5)
    assert counts.tasks["reject"] == {"generated": 2, "accepted": 0, "rejected": {"no_success": 2}}


@pytest.mark.parametrize(
    ("task", "fault", "settings"),
    [
        ("crash", "actor_died", {}),
        ("hang", "actor_hung", {"hang_timeout_s": 1.0}),
        ("hang", "actor_hung", {"hang_timeout_s": 1.0, "replay_open": False}),
    ],
)
def test_what_takes_a_simulator_down_is_quarantined_and_what_waited_behind_it_is_made(
    recorder, tmp_path, task, fault, settings
):
    path = tmp_path / "quarantine.jsonl"
    counts = run_pool(recorder, ["before", task, "behind", "behind"], until=6, quarantine=path, **settings)
    (row,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert row["recipe"]["task"] == task
    assert (row["recipe"]["seed"], row["fault"]) == (1, fault)
    assert row["time"].endswith("+00:00")
    assert task not in counts.tasks
    assert counts.tasks["behind"]["generated"] == 2
    assert counts.tasks["before"]["generated"] == 1
    assert counts.faults == {fault: 1}
    assert len(counts.recovery_s[fault]) == 1


def test_who_waits_for_room_in_the_replay_does_not_hang(recorder, ray_cluster):
    """It has made its episode and stands in line with it."""
    counts = run_pool(recorder, ["wait"], until=1, hang_timeout_s=0.5, replay_open=False)
    assert not counts.faults
    assert counts.tasks["wait"]["generated"] == 1


def test_a_recorder_forgets_what_is_over_and_never_what_is_under_way():
    recorder = FlightRecorder()
    recorder.begin("long")
    for number in range(KEPT_MARKS + 5):
        recorder.begin(str(number))
        recorder.end(str(number))
    assert recorder.states(["long", "0", str(KEPT_MARKS), "never"]) == ["simulating", "waiting", "simulated", "waiting"]
    assert recorder.longest_s(["long", "1"]) > 0
    assert recorder.longest_s(["1", "never"]) == 0


def test_a_resumed_run_skips_what_is_in_quarantine(recorder, tmp_path):
    """The stream of a run that goes on may start before what took its simulator down."""
    path = tmp_path / "quarantine.jsonl"
    Quarantine(path).add(Recipe(task="crash", seed=0, domain=str(path)), "actor_died")
    counts = run_pool(recorder, ["crash", "good"], until=3, quarantine=path)
    assert not counts.faults
    assert "crash" not in counts.tasks


def test_quarantine_survives_a_torn_line_and_announces(tmp_path):
    said: list[str] = []
    first, second = Recipe(task="crash", seed=0), Recipe(task="hang", seed=1)
    Quarantine(tmp_path / "q.jsonl").add(first, "actor_died")
    with (tmp_path / "q.jsonl").open("a") as file:
        file.write('{"recipe": {"ta')
    Quarantine(tmp_path / "q.jsonl", said.append).add(second, "actor_hung")
    again = Quarantine(tmp_path / "q.jsonl")
    assert first in again
    assert second in again
    assert Recipe(task="crash", seed=2) not in again
    assert len(again) == 2
    assert said == ["quarantined hang seed 1: actor_hung"]


def test_an_error_rejects_the_recipe_under_its_name_and_keeps_the_process(recorder):
    counts = run_pool(recorder, ["raise"], until=3)
    assert counts.rejected == {"error_ArithmeticError": 1}
    assert not counts.faults


def test_processes_are_recycled_before_they_grow_old(recorder):
    counts = run_pool(recorder, [], until=9, episodes_per_process=3)
    assert counts.recycled >= 2
    assert not counts.faults


def test_simulators_that_never_start_end_the_run_with_their_error(recorder):
    with pytest.raises(RuntimeError, match="no simulator here"):
        run_pool(recorder, [], until=1, start_fails=True, max_start_failures=2)


@pytest.mark.parametrize(
    ("key", "value"), [("count", 0), ("cpus", 0.0), ("episodes_per_process", 0), ("replay_fraction", 1.5)]
)
def test_impossible_settings_name_the_key(key, value):
    with pytest.raises(ValueError, match=rf"actors\.{key}={value}"):
        PoolConfig(**{key: value})
