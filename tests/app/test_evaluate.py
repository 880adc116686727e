"""`embodichain evaluate` over fake evaluators: what was not scored is said, and is no success."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from embodichain.app.cli import main
from embodichain.app.commands import evaluate as command
from embodichain.app.config import ConfigError
from embodichain.evaluation.closed_loop import TrialResult
from embodichain.evaluation.evaluator import EvalReply, EvalRequest
from embodichain.evaluation.planner import BLOCK_TIMEOUT_S, EvaluationPlanner
from embodichain.serving import PolicyInfo

WORDS = ["evaluate", "--server", "ws://127.0.0.1:9", "--tasks", "handover", "pick_place", "--seeds", "2", "--json"]


class FakeEvaluator:
    """Scores every seed; does to a task what `behaviour` says: `hang`, `die`, `die_once`, `unfilmed`, `unsolved`."""

    def __init__(self, behaviour: dict[str, str], marker: str) -> None:
        self._behaviour, self._marker = behaviour, marker

    def ready(self) -> int:
        return os.getpid()

    def evaluate(self, request: EvalRequest) -> EvalReply:
        behaviour = self._behaviour.get(request.recipes[0].task, "")
        if behaviour == "hang":
            time.sleep(600)
        once = behaviour == "die_once" and not os.path.exists(self._marker)
        if behaviour == "die" or once or (behaviour == "unfilmed" and request.film):
            open(self._marker, "w").close()
            os._exit(1)
        solved = 0 if behaviour == "unsolved" else 50
        seeds = [recipe.seed for recipe in request.recipes]
        trials = tuple(TrialResult(seed=seed, success=True, progress=1.0, steps=60) for seed in seeds if solved)
        return EvalReply(results=trials, lengths=dict.fromkeys(seeds, solved), seconds=0.0)


@pytest.fixture
def evaluated(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, int], list[str]]]:
    """The command with evaluators of some behaviour: exit code, seeds scored per task, its own lines of stderr."""

    def run(behaviour: dict[str, str], *words: str) -> tuple[int, dict[str, int], list[str]]:
        def start(*_: object, **__: object) -> Any:
            return ray.remote(num_cpus=0.1)(FakeEvaluator).remote(behaviour, str(tmp_path / "marker"))

        monkeypatch.setattr("embodichain.app.components.start_evaluator", start)
        code = main([*WORDS, "--evaluators", "1", *words])
        out, err = capsys.readouterr()
        said = [line for line in err.splitlines() if line.startswith("embodichain: ")]  # Ray has something to say, too
        return code, {row["task"]: row["n"] for row in json.loads(out)}, said

    info = PolicyInfo(name="fake", replan=8, chunk=16)
    monkeypatch.setattr("embodichain.app.serving.ask_server", lambda url, token: info)
    monkeypatch.setattr("embodichain.app.cluster.connect", lambda config: None)
    monkeypatch.setattr("embodichain.doctor.renderer_available", lambda: (True, ""))
    monkeypatch.setattr("embodichain.evaluation.planner.MAX_ATTEMPTS", 1)
    monkeypatch.setattr("ray.shutdown", lambda: None)  # the cluster is the session's
    return run


@pytest.mark.parametrize(
    ("behaviour", "words", "scored", "said"),
    [
        (
            {"handover": "hang"},
            ["--block-timeout", "20"],
            {"pick_place": 2},
            "2 of 2 seeds of handover not scored (its evaluators hung); "
            "evaluators replaced: 1 hung (not done in 20 s: --block-timeout)",
        ),
        (
            {"handover": "die", "pick_place": "unsolved"},
            [],
            {},
            "2 of 2 seeds of handover not scored (its evaluators died); "
            "2 of 2 seeds of pick_place not scored (the expert fails on too many); evaluators replaced: 1 died",
        ),
        (
            {"handover": "unfilmed"},
            ["--videos", "1"],
            {"handover": 2, "pick_place": 2},
            "no video of handover (its evaluators died); evaluators replaced: 1 died",
        ),
    ],
)
def test_what_was_given_up_is_one_line_and_no_success(
    evaluated: Any, behaviour: dict[str, str], words: list[str], scored: dict[str, int], said: str
) -> None:
    assert evaluated(behaviour, *words) == (1, scored, [f"embodichain: {said}"])


def test_a_server_that_went_away_is_named(evaluated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([PolicyInfo(name="fake", replan=8, chunk=16)])

    def ask_server(url: str, token: str) -> PolicyInfo:
        for info in answers:
            return info
        raise ConfigError(f"--server={url}: unreachable: refused")

    monkeypatch.setattr("embodichain.app.serving.ask_server", ask_server)
    code, scored, (said,) = evaluated({"handover": "die"})
    assert (code, scored) == (1, {"pick_place": 2})
    assert said == (
        "embodichain: 2 of 2 seeds of handover not scored (its evaluators died); the server no longer answers "
        "(--server=ws://127.0.0.1:9: unreachable: refused); evaluators replaced: 1 died"
    )


def test_videos_that_cannot_be_made_are_said_beside_the_scores(evaluated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embodichain.doctor.renderer_available", lambda: (False, "no Vulkan device"))
    said = "embodichain: no videos: nothing can be rendered here (no Vulkan device)"
    assert evaluated({}, "--videos", "1") == (1, {"handover": 2, "pick_place": 2}, [said])


def test_an_evaluator_that_was_replaced_is_said_though_every_seed_is_scored(
    evaluated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embodichain.evaluation.planner.MAX_ATTEMPTS", 2)
    said = "embodichain: evaluators replaced: 1 died"
    assert evaluated({"handover": "die_once"}) == (0, {"handover": 2, "pick_place": 2}, [said])


def test_a_server_may_be_slower_than_a_checkpoint(evaluated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def planner(*arguments: Any, **settings: Any) -> EvaluationPlanner:
        given.append(settings["block_timeout_s"])
        return EvaluationPlanner(*arguments, **settings)

    monkeypatch.setattr(command, "EvaluationPlanner", planner)
    assert evaluated({}) == (0, {"handover": 2, "pick_place": 2}, [])
    assert given == [command.SERVER_TIMEOUT_S]
    assert command.SERVER_TIMEOUT_S > BLOCK_TIMEOUT_S


def test_no_time_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for seconds in ("0", "nan"):
        assert main([*WORDS, "--block-timeout", seconds]) == 2
        assert capsys.readouterr().err == f"embodichain: --block-timeout={seconds}: expected more than 0 seconds\n"
