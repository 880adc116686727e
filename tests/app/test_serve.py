"""A served checkpoint gives the chunks that it gives in-process; a wrong wish is refused in one line."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embodichain.app.cli import main
from embodichain.app.commands.checkpoints import find_checkpoint
from embodichain.app.config import (
    ArchiveConfig,
    ConfigError,
    EncoderConfig,
    EvaluationConfig,
    LearnerConfig,
    RunConfig,
    save_config,
)
from embodichain.app.policies import load_policy
from embodichain.app.serving import client_encoder, served
from embodichain.contracts import PolicyInput, Recipe, UnifiedAction, WindowSpec, nothing_executed, seed_range
from embodichain.encoders import StateEncoder
from embodichain.encoders.text import TextEncoder
from embodichain.evaluation.closed_loop import Trial, run_trial
from embodichain.evaluation.timing import Timing
from embodichain.serving import PolicyServer, RemotePolicy, ServerConfig
from learner import DataSpec, TrainConfig, TrainState, build_model, preset, save_checkpoint
from learner.runtime import RuntimeConfig
from tasks.session import TaskSession

ROOT = Path(__file__).parents[2]
SAI = RuntimeConfig(mode="sai", s_video=1.0, s_action=0.5)
CONFIG = RunConfig(
    name="tiny",
    tasks={"pick_place": 1.0},
    window=WindowSpec(frames=2, tau=8, chunk=16),
    learner=LearnerConfig(control="eef", network=preset("tiny")),
    evaluation=EvaluationConfig(replan=8, mode="sai", s_video=1.0, s_action=0.5),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one untrained checkpoint."""
    encoder = StateEncoder()
    data = DataSpec(
        tokens=encoder.max_tokens, channels=encoder.channels, control="eef", encoder_id=encoder.id,
        text_encoder_id=TextEncoder().id,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    state = TrainState(build_model(preset("tiny"), data), TrainConfig())
    save_checkpoint(folder / "checkpoints" / "step_0", state)
    save_config(CONFIG, folder / "config.yaml")
    return folder


def test_a_served_checkpoint_acts_as_it_does_in_process(run: Path) -> None:
    checkpoint = str(run / "checkpoints" / "step_0")
    info, make = served(CONFIG, checkpoint, SAI)
    server, up = PolicyServer(info, make, ServerConfig(port=0)), threading.Event()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(server.run(up.set, stop),))
    thread.start()
    assert up.wait(20)
    session = TaskSession(render=None)
    trial = Trial(recipe=Recipe(task="pick_place", seed=seed_range("test").at(0)), expert_steps=12)
    timing = Timing(mode="sai", latency_steps=4.0)
    local = load_policy(checkpoint, replan=8, runtime=SAI)
    with RemotePolicy(server.url) as remote:
        assert (remote.work, remote.info.mode) == (local.work, "sai")
        encoder = client_encoder(remote.info, ["pick_place"])
        results = [run_trial(session, encoder, policy, trial, 2.0, timing=timing) for policy in (local, remote)]
        own, theirs = (replace(result, latency_s=0.0) for result in results)
        assert own == theirs
        assert 0 < own.held < own.steps
        observation = session.reset(trial.recipe)
        seen = PolicyInput(
            observation=observation, executed=nothing_executed(), tokens=encoder.encode(observation),
            token_mask=encoder.token_mask(observation),
        )  # fmt: skip
        chunks = []
        for policy in (local, remote):
            policy.reset("pick it up")
            chunks.append(policy.step(seen))
        np.testing.assert_array_equal(chunks[0][:8], chunks[1][:8])
        joints = chunks[1][:, UnifiedAction.joints(0)]
        assert np.abs(np.diff(joints, axis=0)).max() < 0.5  # all of a served chunk can be executed
        assert (chunks[0][8:, UnifiedAction.joints(0)] == 0).all()
        with pytest.raises(ConfigError, match="the server's policy sees"):
            client_encoder(remote.info, ["stow_block", "line_up_blocks"])
    with pytest.raises(ConfigError, match=r"trained on encoder 'other'"):
        client_encoder(replace(info, tokens={**info.tokens, "encoder_id": "other"}), ["pick_place"])
    loop.call_soon_threadsafe(stop.set)
    thread.join(20)
    loop.close()
    session.close()


def command(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "embodichain", *words], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@contextmanager
def serving(run: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`embodichain serve` as a process, once it listens, and where."""
    process = command("serve", str(run), "--port", str(port))
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("serving tiny/step_0 (mode sai) on ws://"), said
        yield process, said.split(";")[0].split()[-1]
    finally:
        process.kill()
        process.communicate()


def page(url: str, path: str) -> Any:
    with urllib.request.urlopen(url.replace("ws://", "http://") + path, timeout=20) as answer:
        return json.load(answer)


@pytest.mark.parametrize(("number", "free"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_a_server_answers_until_it_is_told_to_stop(run: Path, number: signal.Signals, free: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with serving(run, 0 if free else port) as (process, url):
        assert free or url == f"ws://127.0.0.1:{port}"
        assert page(url, "/healthz")["status"] == "ok"
        with RemotePolicy(url) as policy:
            policy.reset("pick it up")
            assert page(url, "/healthz")["sessions"] == 1
            process.send_signal(number)  # with a client that would stay
            said, errors = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "stopped\n"), errors
    assert "Traceback" not in errors


def test_a_server_is_scored_by_the_command(run: Path) -> None:
    with serving(run) as (_, url):
        words = ["--tasks", "pick_place", "--seeds", "2", "--evaluators", "1", "--mode", "sync", "--json"]
        scoring = command("evaluate", "--server", url, *words)
        table, errors = scoring.communicate(timeout=400)
        assert scoring.returncode == 0, errors
        (row,) = json.loads(table)
        assert (row["task"], row["n"]) == ("pick_place", 2)
        assert "not scored" not in errors
        answers = page(url, "/timing")["answers"]
        assert answers["reset"]["n"] == 2
        assert answers["step"]["n"] > 2


def test_a_finished_run_needs_neither_its_archive_nor_its_places(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "copy")
    gone = replace(
        CONFIG, episodes="archive:/nowhere/a", output="/dev/null/runs", archive=ArchiveConfig(path="/proc/a")
    )
    save_config(gone, tmp_path / "copy" / "config.yaml")
    assert find_checkpoint(str(tmp_path / "copy"))[2].episodes == "archive:/nowhere/a"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"window": WindowSpec(frames=2, tau=4, chunk=16)}, "tau=8, config.yaml beside it says 4"),
        (
            {"encoder": EncoderConfig(name="dinov3"), "window": WindowSpec(frames=2, tau=8, chunk=16, phase_step=8)},
            "encoder=state, config.yaml beside it says dinov3",
        ),
        ({"learner": LearnerConfig(control="joint", network=preset("tiny"))}, "control=eef"),
    ],
)
def test_a_checkpoint_beside_another_runs_configuration_is_neither_served_nor_scored(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    shutil.copytree(run, tmp_path / "copy")
    config = replace(CONFIG, **change)
    save_config(replace(config, evaluation=replace(config.evaluation, mode="sync")), tmp_path / "copy" / "config.yaml")
    with pytest.raises(ValueError, match=said):
        served(config, str(run / "checkpoints" / "step_0"), RuntimeConfig())
    assert main(["serve", str(tmp_path / "copy"), "--port", "0"]) == 2
    assert said in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "copy"), "--seeds", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_nothing_is_speculated_on_before_the_first_step_of_an_episode(run: Path) -> None:
    policy = load_policy(str(run / "checkpoints" / "step_0"), replan=8, runtime=SAI)
    policy.reset("put it there")
    with pytest.raises(ValueError, match="expected a step before it"):
        policy.speculate()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve", "RUN", "--host", "0.0.0.0"], "reachable from other machines, which needs a token"),
        (["serve", "RUN", "--port", "70000"], "--port=70000"),
        (["serve", "RUN", "--max-sessions", "0"], "--max-sessions=0"),
        (["serve", "RUN", "--gpu"], "--gpu: torch sees no GPU here"),
        (["serve", "RUN", "--s-action", "2"], "evaluation.s_action=2.0: expected a number in [0, 1]"),
        (["serve", "RUN/nowhere"], "expected runs/<name>"),
        (["serve", "FLAT"], "learner.network.kind=flow_policy with condition.use=True imagines no frame"),
        (["evaluate", "HASTY"], "expected them equal"),
        (["evaluate"], "expected a checkpoint or --server URL"),
        (["evaluate", "RUN", "--latency-steps", "-1"], "evaluation.latency_steps=-1.0"),
        (["evaluate", "--server", "ws://127.0.0.1:9"], "expected the tasks to score"),
        (["evaluate", "--server", "ws://127.0.0.1:9", "--tasks", "pick_place"], "no policy server answers there"),
        (["evaluate", "--server", "http//", "--tasks", "pick_place"], "no policy server answers there"),
        (["bench", "latency", "RUN", "--task", "stow_block"], "the run learned pick_place"),
        (["bench", "world-model", "RUN", "--heldout", "1"], "--heldout=1"),
    ],
)
def test_a_wrong_wish_is_one_line(
    run: Path,
    words: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    others = {
        "FLAT": replace(CONFIG, learner=replace(CONFIG.learner, network=preset("tiny", "flow_policy"))),
        "HASTY": replace(CONFIG, evaluation=replace(CONFIG.evaluation, replan=4)),
    }
    for name, config in others.items():
        if name in words:
            words = [word.replace(name, str(tmp_path)) for word in words]
            shutil.copytree(run, tmp_path, dirs_exist_ok=True)
            save_config(replace(config, evaluation=replace(config.evaluation, mode="sync")), tmp_path / "config.yaml")
            words += ["--mode", "sai"]
    assert main([word.replace("RUN", str(run)) for word in words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
