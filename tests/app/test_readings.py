"""What a summary says of every checkpoint, and what processor time a run is charged."""

import json

import pytest

from embodichain.actors.pool import PoolCounts
from embodichain.actors.worker import SimActor, WorkReport
from embodichain.app.archiving import COST, cost_per_pair
from embodichain.app.config import LearnerConfig, RunConfig
from embodichain.app.folder import RunState
from embodichain.app.progress import final_metrics
from embodichain.app.summary import core_seconds, generation_rate, readings, success_table
from embodichain.archive import Archive
from embodichain.archive.writer import ArchiveWriter
from embodichain.contracts import Recipe
from embodichain.replay.fakes import fake_episode


def counted(step: int) -> dict[str, float]:
    learner = {"step": step, "elapsed_s": 2.0 * step, "uses": 100 * step, "fresh": 10 * step, "core_s": 3.0 * step}
    return {**learner, "simulators_core_s": 5.0 * step, "accepted_pairs": 20 * step}


def scored(step: int, domain: str, n: int) -> dict:
    row = {"task": "pick_place", "domain": domain, "n": n, "rate": 1.0}
    return {"step": step, "domain": domain, "scores": [row], "results": {"pick_place": trials(n)}}


def trials(n: int) -> list[dict]:
    return [{"seed": seed, "success": True, "progress": 1.0} for seed in range(n)]


def test_every_checkpoint_but_the_first_is_a_reading_with_what_it_had_cost():
    state = RunState(checkpoints={str(step): counted(step) for step in (10, 0, 5)})
    state.heldout = [{"step": 5.0, "action": 0.2}, {"step": 10.0, "action": 0.1}]
    state.evaluations = [scored(5, "default", 2), scored(5, "default", 6), scored(5, "default@scenes", 3)]
    half, whole = readings(RunConfig(learner=LearnerConfig(steps=10)), state, None)
    assert [(each["step"], each["share"], each["error"]) for each in (half, whole)] == [(5, 0.5, 0.2), (10, 1.0, 0.1)]
    assert (half["unique_pairs"], half["pair_uses"]) == (50, 500)
    assert half["core_seconds"] == {"learner": 15.0, "simulators": 25.0}
    assert [(row["domain"], row["n"], len(row["outcomes"])) for row in half["success"]] == [
        ("default", 6, 6),
        ("default@scenes", 3, 3),
    ]
    assert whole["success"] == []


def test_the_rate_of_generation_leaves_start_and_scoring_out():
    assert generation_rate({"0": {"at_s": 40.0, "episodes": 10}, "9": {"at_s": 100.0, "episodes": 130}}) == 2.0
    assert generation_rate({"0": {"at_s": 40.0, "episodes": 10}}) is None
    assert generation_rate({"0": counted(0), "9": counted(9)}) is None  # of a run of before


def test_archived_episodes_are_charged_with_what_they_had_cost():
    config = RunConfig(episodes="archive:somewhere")
    assert core_seconds(config, 1.0, 2.0, 100, 0.5) == {"learner": 1.0, "simulators": 2.0, "archived": 50.0}
    unknown = core_seconds(config, 1.0, 2.0, 100, None)
    assert unknown["archived"] is None  # not zero: nobody wrote down what they had cost
    summary = {"success": [], "experience_throughput": 1.0, "heldout_error": {}, "core_seconds": unknown}
    assert "core_seconds" not in final_metrics(summary)


def test_what_a_pair_of_an_archive_had_cost_is_over_all_runs_that_filled_it(tmp_path):
    archive = Archive.create(str(tmp_path))
    with ArchiveWriter(archive, 0) as writer:
        for seed in (1, 2):
            writer.append(fake_episode(seed, 50, 2, 3, state_dim=1))
    pairs = sum(entry.pairs for entry in archive.entries())
    assert cost_per_pair(str(tmp_path)) is None
    (tmp_path / COST).write_text(json.dumps({"one": 30.0, "two": 20.0}))
    assert cost_per_pair(str(tmp_path)) == pytest.approx(50.0 / pairs)
    assert cost_per_pair("") is None


def test_an_actor_reports_the_processor_time_since_its_last_report():
    class Busy:
        def produce(self, recipe: Recipe) -> WorkReport:
            sum(range(2_000_000))
            return WorkReport(recipe=recipe, accepted=True, reasons=(), pairs=1)

    actor, counts = SimActor(Busy), PoolCounts()
    recipe = Recipe(task="pick_place", seed=0, domain="clean", sim_hash="")
    first, second = actor.produce(recipe), actor.produce(recipe)
    assert 0 < second.cpu_s < first.cpu_s  # the first one carries the start of the process
    counts.add(first)
    counts.add(second)
    assert counts.cpu_s == first.cpu_s + second.cpu_s


def test_domains_are_rows_of_their_own_each_beside_its_own_first_checkpoint():
    entries = [scored(10, "default@scenes", 4), scored(5, "default", 2), scored(10, "default", 4)]
    rows = success_table(entries, ["default", "default@scenes"])  # not as they happened to be scored
    assert [(row["domain"], row["n"], row["first_n"]) for row in rows] == [("default", 4, 2), ("default@scenes", 4, 4)]
