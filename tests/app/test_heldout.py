"""A checkpoint of a run whose held-out error is not finite: null from the evaluator to the summary, and no failure."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from embodichain.app.config import LearnerConfig, RunConfig
from embodichain.app.folder import RunState
from embodichain.app.policies import checkpoint_heldout_error
from embodichain.app.progress import Progress, final_metrics, heldout_summary
from embodichain.app.summary import readings
from embodichain.contracts import WindowSpec
from embodichain.encoders.text import TextEncoder
from embodichain.evaluation.evaluator import Evaluator, EvaluatorParts
from embodichain.replay import fake_episode
from embodichain.replay.heldout import heldout_batch
from learner import DataSpec, TrainConfig, TrainState, build_model, preset
from learner.checkpoint import save_checkpoint

WINDOW = WindowSpec(frames=3, tau=4, chunk=6)
DOMAINS = ("default", "default@scenes")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of one model, before and after it diverged."""
    text = TextEncoder()
    data = DataSpec(tokens=4, channels=12, chunk=6, tau=4, text_dim=text.dim, encoder_id="", text_encoder_id=text.id)
    folder, state = tmp_path_factory.mktemp("checkpoints"), TrainState(build_model(preset("tiny"), data), TrainConfig())
    save_checkpoint(folder / "step_5", state)
    with torch.no_grad():
        for parameter in state.ema.parameters():
            parameter.fill_(1e30)
    save_checkpoint(folder / "step_10", state)
    return folder


def evaluator() -> Evaluator:
    nobody = cast(Any, None)  # neither simulates nor acts
    parts = EvaluatorParts(session=nobody, encoder=nobody, load_policy=nobody, heldout_error=checkpoint_heldout_error)
    made = Evaluator(parts)
    made._heldout = {domain: heldout_batch([fake_episode(3, 40, 4, 12, tau=4)], WINDOW) for domain in DOMAINS}
    return made


def test_a_checkpoint_that_diverged_does_not_end_the_run(checkpoints):
    asked, state = evaluator(), RunState()
    for step in (5, 10):
        # As the tracker keeps them: state.json holds them, too.
        errors = {"step": float(step), **asked.heldout_error(str(checkpoints / f"step_{step}"))}
        state.heldout.append(json.loads(json.dumps(errors, allow_nan=False)))
        counted = {"elapsed_s": 2.0 * step, "uses": 100, "fresh": 10, "core_s": 3.0}
        state.checkpoints[str(step)] = {**counted, "simulators_core_s": 5.0, "accepted_pairs": 20}
    summary = heldout_summary(state.heldout)
    assert summary["first"] > 0
    assert (summary["last"], summary["by_domain"]) == (None, dict.fromkeys(DOMAINS))
    before, after = readings(RunConfig(learner=LearnerConfig(steps=10)), state, None)
    assert before["error"] == summary["first"]
    assert (after["error"], after["errors"]) == (None, dict.fromkeys(DOMAINS))
    final = {"success": [], "experience_throughput": 1.0, "heldout_error": summary, "core_seconds": {"learner": None}}
    assert "heldout_error" not in final_metrics(final)

    logged: dict[int, dict[str, float]] = {}
    shown = SimpleNamespace(_log=lambda step, values: logged.update({step: values}))
    for row in state.heldout:
        Progress.heldout(cast(Progress, shown), row)
    assert logged[5]["heldout/action_error"] == summary["first"]
    assert not any("action_error" in name for name in logged[10])
    assert all(isinstance(value, float) for values in logged.values() for value in values.values())


def test_a_run_of_before_that_left_out_what_was_not_finite_has_a_summary():
    assert heldout_summary([{"step": 0.0, "action": 0.5, "unit": "rad"}])["input_blind"] is None
