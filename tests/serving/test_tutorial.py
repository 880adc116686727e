"""The tutorial's server as printed, in a process of its own, scored by the evaluator's loop on real physics."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embodichain.app.serving import ask_server, client_encoder, remote_session
from embodichain.contracts import Recipe, seed_range
from embodichain.evaluation.closed_loop import Trial, run_trial
from embodichain.evaluation.timing import Timing
from embodichain.serving import RemotePolicy

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "serve_a_policy.md"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    code = re.search(r"```python\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "my_server.py").write_text(code[1])
    process = subprocess.Popen([sys.executable, str(tmp_path / "my_server.py"), "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield f"ws://127.0.0.1:{process.stdout.readline().split()[-1]}"
    process.terminate()
    process.wait(20)


def test_anybodys_policy_is_scored_in_any_mode_it_can(url: str) -> None:
    info = ask_server(url, "")
    assert (info.name, info.mode, info.encoder_id) == ("fidgeting grippers", "sync", "")
    session, encoder = remote_session(info, render=False), client_encoder(info, ["pick_place"])
    trial = Trial(recipe=Recipe(task="pick_place", seed=seed_range("test").at(0)), expert_steps=20)
    for timing, held in ((Timing(), 0), (Timing(mode="naive_async", latency_steps=3.0), 3)):
        with RemotePolicy(url) as policy:
            result = run_trial(session, encoder, policy, trial, 1.5, timing=timing)
        assert (result.success, result.finite, result.steps, result.held) == (False, True, 30, held)
    session.close()
