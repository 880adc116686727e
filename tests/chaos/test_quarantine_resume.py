"""A run whose simulator is killed, whose driver is killed then, and which is resumed from an older state."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from benchmarks.chaos.processes import descendants
from benchmarks.chaos.runs import SETTINGS, RunProcess
from embodichain.app.components import make_encoder, make_session
from embodichain.app.config import load_config
from embodichain.contracts import Recipe
from embodichain.rollout import RolloutOptions, make_episode


def sampled(run: Path) -> set[str]:
    """Ids of all recipes of which a shard has ever delivered a window."""
    lines = [line for path in run.glob("replay/*.ledger.jsonl") for line in path.read_text().splitlines()]
    return {row["id"] for row in map(json.loads, lines) if "id" in row}


@pytest.mark.slow
def test_a_recipe_that_killed_a_simulator_is_not_made_again_by_the_resumed_run(tmp_path):
    run = RunProcess(tmp_path, *SETTINGS)
    quarantine, state = run.run / "quarantine.jsonl", run.run / "state.json"
    try:
        run.until(lambda: run.step() > 0, "first checkpoint")
        while not quarantine.exists():  # a process between two recipes takes none with it: try again
            for pid in [pid for pid, args in descendants(run.process.pid).items() if "SimActor" in args]:
                os.kill(pid, signal.SIGKILL)
            step = run.step()
            run.until(lambda at=step: quarantine.exists() or run.step() > at + 100, "quarantine")  # type: ignore[misc]
        (row,) = [json.loads(line) for line in quarantine.read_text().splitlines()]
        run.kill()
        before, drawn = sampled(run.run), json.loads(state.read_text())
        drawn["recipes_drawn"] = 0  # as old as a state can be: every recipe comes up once more
        state.write_text(json.dumps(drawn))
        generated = drawn["counts"]["generated"]
        run.resume()
        again = lambda: json.loads(state.read_text())["counts"]["generated"]  # noqa: E731
        run.until(lambda: again() > 2 * generated + 10, "recipes beyond those of the first start")
        kept = run.step()
        run.until(lambda: run.step() > kept, "checkpoint")
        summary = run.stop()
    finally:
        run.kill()
    assert row["fault"] == "actor_died"
    assert row["recipe_id"] not in before | sampled(run.run)
    assert dict(summary["episodes"])["quarantined"] == 1  # type: ignore[call-overload]
    config = load_config(run.run / "config.yaml")
    recipe = Recipe(**row["recipe"])
    session, encoder = make_session(config, render=False), make_encoder(config)
    _, verdict, _ = make_episode(recipe, session, encoder, RolloutOptions(tau=config.window.tau))
    assert verdict.accepted, "a recipe that nobody would have sampled proves nothing"
