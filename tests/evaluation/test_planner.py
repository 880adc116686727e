"""The planner over fake evaluators: complete results, retries, giving up."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from embodichain.app.config import load_config
from embodichain.app.heldout import HeldoutTracker
from embodichain.evaluation.closed_loop import TrialResult
from embodichain.evaluation.evaluator import EvalReply, EvalRequest
from embodichain.evaluation.planner import EvaluationPlanner


class FakeEvaluator:
    """Succeeds on even seeds; the expert fails on seeds that end in 7, or that are odd, or on all.

    What it does once, a marker file ends.
    """

    def __init__(self, behaviour: str, marker: str) -> None:
        self._behaviour, self._marker = behaviour, marker

    def ready(self) -> int:
        return os.getpid()

    def evaluate(self, request: EvalRequest) -> EvalReply:
        once = self._behaviour == "die_once" and not os.path.exists(self._marker)
        if once or self._behaviour == "die":
            open(self._marker, "w").close()
            os._exit(1)
        if self._behaviour == "hang_once" and not os.path.exists(self._marker):
            open(self._marker, "w").close()
            time.sleep(600)
        if self._behaviour == "raise":
            raise ValueError("no checkpoint there")
        seeds = [recipe.seed for recipe in request.recipes]
        fails = {"odd": lambda seed: seed % 2, "all": lambda seed: True}.get(
            self._behaviour, lambda seed: seed % 10 == 7
        )
        lengths = {seed: request.known_lengths.get(seed, 0 if fails(seed) else 50) for seed in seeds}
        results = [TrialResult(seed=s, success=s % 2 == 0, progress=0.5, steps=60) for s in seeds if lengths[s]]
        return EvalReply(results=tuple(results), lengths=lengths, seconds=0.0)


def evaluate(behaviour: str, marker, seeds: int = 12, domains: tuple[str, ...] = ("",), block_timeout_s: float = 240.0):
    def start() -> Any:
        return ray.remote(num_cpus=0.1)(FakeEvaluator).remote(behaviour, str(marker))

    planner = EvaluationPlanner(
        start,
        count=2,
        tasks=["pick_place", "handover"],
        domain="default",
        sim_hash="",
        step_limit_ratio=2.0,
        lengths={},
        block_timeout_s=block_timeout_s,
    )
    for domain in domains:
        planner.submit("checkpoint", 7, seeds, domain)
    results, stop = [], time.monotonic() + 180
    try:
        while planner.busy:
            assert time.monotonic() < stop
            results.extend(planner.poll())
            time.sleep(0.05)
    finally:
        planner.stop()
    return planner, results


def test_every_task_gets_its_seeds_in_order_and_the_left_out_are_counted(ray_cluster, tmp_path):
    planner, (result,) = evaluate("fine", tmp_path / "marker")
    assert [score.task for score in result.scores] == ["pick_place", "handover"]
    assert all((score.n, score.left_out, score.learner_step) == (12, 1, 7) for score in result.scores)
    seeds = [trial.seed for trial in result.results["pick_place"]]
    assert seeds == sorted(seeds)
    assert not any(seed % 10 == 7 for seed in seeds)
    assert result.scores[0].rate == pytest.approx(sum(s % 2 == 0 for s in seeds) / 12)
    assert len(planner.lengths["pick_place"]) == 13


def test_for_every_seed_that_the_expert_fails_on_another_is_tried(ray_cluster, tmp_path):
    planner, (result,) = evaluate("odd", tmp_path / "marker")
    assert [(score.n, score.left_out) for score in result.scores] == [(12, 11), (12, 11)]
    seeds = sorted(planner.lengths["pick_place"])
    assert seeds == list(range(seeds[0], seeds[0] + 23))


def test_an_expert_that_fails_on_everything_ends_the_trying(ray_cluster, tmp_path):
    planner, (result,) = evaluate("all", tmp_path / "marker", seeds=4)
    assert result.scores == []
    assert len(planner.lengths["pick_place"]) == 12


def test_another_domain_has_scores_and_expert_lengths_of_its_own(ray_cluster, tmp_path):
    planner, (first, second) = evaluate("fine", tmp_path / "marker", domains=("", "default@scenes"))
    by_domain = {result.domain: result for result in (first, second)}
    assert set(by_domain) == {"default", "default@scenes"}
    for domain, result in by_domain.items():
        assert {(score.domain, score.n) for score in result.scores} == {(domain, 12)}
    assert by_domain["default@scenes"].scores[0].split == "heldout_scenes"
    assert len(planner.lengths["pick_place"]) == len(planner.lengths["pick_place default@scenes"]) == 13


def test_a_block_whose_evaluator_dies_is_done_by_another(ray_cluster, tmp_path):
    planner, (result,) = evaluate("die_once", tmp_path / "marker")
    assert planner.faults["evaluator_died"] >= 1
    assert all(score.n == 12 for score in result.scores)


def test_a_block_whose_evaluator_hangs_is_done_by_another(ray_cluster, tmp_path):
    planner, (result,) = evaluate("hang_once", tmp_path / "marker", block_timeout_s=20.0)
    assert planner.faults["evaluator_hung"] >= 1
    assert all(score.n == 12 for score in result.scores)


class Heldout(FakeEvaluator):
    """Its set takes a while; it dies at the first error that it is asked for, or cannot make the set."""

    def build_heldout(self, *_: object) -> None:
        if self._behaviour == "no_set":
            raise RuntimeError("the expert solved only 1 of 8")
        time.sleep(1.0)

    def heldout_error(self, checkpoint: str) -> dict[str, float]:
        if not os.path.exists(self._marker):
            open(self._marker, "w").close()
            os._exit(1)
        if self._behaviour == "no_set":
            raise RuntimeError("heldout_error before build_heldout")
        return {"action": float(checkpoint.rsplit("_", 1)[-1])}


def errors_of(behaviour: str, marker: Path) -> tuple[list[dict[str, Any]], EvaluationPlanner]:
    def start() -> Any:
        return ray.remote(num_cpus=0.1)(Heldout).remote(behaviour, str(marker))

    config = load_config("configs/tiny.yaml")
    planner = EvaluationPlanner(
        start, count=1, tasks=["pick_place"], domain="default", sim_hash="", step_limit_ratio=2.0, lengths={}
    )
    tracker = HeldoutTracker(config, planner, "", [])
    stop = time.monotonic() + 60
    try:
        for step in (1, 2, 3):
            tracker.submit(f"c/step_{step}")
        planner.submit("c/step_3", 3, 2)
        while tracker.busy or planner.busy:
            assert time.monotonic() < stop
            planner.poll()
            tracker.poll()
            time.sleep(0.05)
    finally:
        planner.stop()
    return tracker.errors, planner


def test_held_out_errors_that_die_with_their_evaluator_are_asked_of_the_next(ray_cluster, tmp_path):
    errors, planner = errors_of("fine", tmp_path / "marker")
    assert [(error["step"], error["action"]) for error in errors] == [(1, 1), (2, 2), (3, 3)]
    assert planner.faults["evaluator_died"] == 1


def test_a_held_out_set_that_cannot_be_made_says_why(ray_cluster, tmp_path):
    (tmp_path / "marker").write_text("")
    with pytest.raises(RuntimeError, match="held-out error of c/step_1: the expert solved only 1 of 8"):
        errors_of("no_set", tmp_path / "marker")


def test_a_block_that_always_kills_its_evaluator_is_given_up(ray_cluster, tmp_path):
    planner, (result,) = evaluate("die", tmp_path / "marker", seeds=2)
    assert planner.faults["evaluation_block_given_up"] == 2
    assert result.scores == []


def test_a_bad_checkpoint_is_an_error_not_a_zero(ray_cluster, tmp_path):
    with pytest.raises(RuntimeError, match="no checkpoint there"):
        evaluate("raise", tmp_path / "marker")
