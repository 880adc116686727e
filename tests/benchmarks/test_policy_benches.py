"""The closed-loop benchmarks of the policy runtime, on an untrained checkpoint: what they compare is what they say."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import latency, world_model
from benchmarks.kept import Kept, Measured
from benchmarks.scored import Scored, success_row
from embodichain.app.cli import main
from embodichain.app.commands import bench_policy
from embodichain.app.config import EvaluationConfig, LearnerConfig, RunConfig
from embodichain.contracts import PolicyInput, WindowSpec
from embodichain.encoders import StateEncoder
from embodichain.encoders.text import TextEncoder
from embodichain.evaluation.closed_loop import AT_ONCE, TrialResult
from learner import DataSpec, FlowConfig, TrainConfig, TrainState, build_model, preset, save_checkpoint
from learner.runtime import RuntimeConfig
from learner.testing import small_batch, small_model, stirred

CONFIG = RunConfig(
    tasks={"pick_place": 1.0},
    window=WindowSpec(frames=2, tau=8, chunk=16),
    learner=LearnerConfig(control="eef", network=preset("tiny")),
    evaluation=EvaluationConfig(replan=8, step_limit_ratio=1.0),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    encoder = StateEncoder()
    data = DataSpec(
        tokens=encoder.max_tokens, channels=encoder.channels, control="eef", encoder_id=encoder.id,
        text_encoder_id=TextEncoder().id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = build_model(preset("tiny"), data)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)  # an untrained model's actions are the mean of all
    return str(save_checkpoint(tmp_path_factory.mktemp("run") / "step_0", TrainState(model, TrainConfig())))


def short(scored: Scored, seeds: int = 1) -> list[Any]:
    """Trials of a few chunks."""
    return [replace(trial, expert_steps=33) for trial in scored.trials("pick_place", seeds)]


def test_the_true_next_frame_is_what_is_then_seen(checkpoint: str) -> None:
    scored = Scored.load(CONFIG, checkpoint)

    class Watched(world_model.Foreseen):
        """Acts on what it imagined, and looks whether what was foreseen comes."""

        foreseen: list[np.ndarray]

        def step(self, seen: PolicyInput) -> np.ndarray:
            if self.foreseen:
                assert seen.tokens is not None
                np.testing.assert_array_equal(self.foreseen[-1], seen.tokens)
            return super().step(seen)

        def show(self, imagined: Tensor, propose: world_model.Propose) -> Tensor:
            self.foreseen.append(super().show(imagined, propose)[0].numpy())
            return imagined

    policy = Watched(scored, world_model.make_session(CONFIG, render=False))
    policy.foreseen = []
    (trial,) = short(scored)
    policy.begin(trial)
    scored.run(policy, trial, AT_ONCE)
    assert len(policy.foreseen) == 5
    assert not np.array_equal(policy.foreseen[0], policy.foreseen[-1])


def test_every_variant_shows_something_else_on_the_same_seeds(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = short(Scored.load(CONFIG, checkpoint), 2)
    monkeypatch.setattr(Scored, "trials", lambda self, task, seeds: trials)
    baseline = (CONFIG, checkpoint)
    rows: list[dict[str, Any]] = list(world_model.run(CONFIG, checkpoint, "pick_place", 2, 2, baseline, Kept()))
    loop = [row for row in rows if row["on"] == "closed loop"]
    assert [row["shown"] for row in loop] == [*world_model.VARIANTS, "baseline: clwm"]
    assert all(row["n"] == 2 for row in loop)
    assert loop[0]["progress"] == loop[-1]["progress"]  # the same checkpoint in the harness of the others
    first, *held = (row for row in rows if row["on"] != "closed loop")
    assert first["frame_rms"] > 0
    assert first["copy_rms"] > 0
    assert len({row["action_m"] for row in held}) > 3


def test_held_out_errors_tell_a_true_frame_from_a_wrong_one() -> None:
    """A model whose action is off by as much as the frame that it is shown."""
    model, batch = small_model(), small_batch(size=4)
    model.preprocess.observe(batch)
    want = batch.action[:, :, : model.data.tau].clone()

    def act(memory: Any, frame: Any, shown: Tensor | None, rng: Any, *, level: float | None = None) -> Tensor:
        t = next(t for t in range(batch.frames) if torch.equal(frame.tokens, batch.tokens[:, t]))
        if shown is None:
            return want[:, t] + 1.0
        off = (shown - batch.tokens[:, t + 1]).abs().mean((1, 2))
        return want[:, t] + off[:, None, None]

    model.act = act
    errors = world_model.action_errors(model, batch, world_model.other_windows(np.array([0, 0, 1, 1])))
    assert errors["true"] == 0.0
    assert errors["none"] == pytest.approx(1.0, rel=1e-5)
    assert min(errors[name] for name in ("own", "zeros", "other")) > 0.0


def test_held_out_errors_do_not_hang_on_frames_that_do_not_exist() -> None:
    """Burn-in at the beginning of an episode is padding."""
    model, batch = small_model(), small_batch(size=4)
    model.preprocess.observe(batch)
    stirred(model)
    batch.frame_mask[:2, 0] = False
    batch.previous_mask[:2, :2] = False
    tokens = batch.tokens.clone()
    tokens[:2, 0] = 3.0
    other = np.array([2, 3, 3, 2])  # windows whose frames are all there
    errors = [world_model.action_errors(model, each, other) for each in (batch, replace(batch, tokens=tokens))]
    assert errors[0] == errors[1]


def test_frames_are_exchanged_between_episodes_only() -> None:
    episode_of = np.array([0, 0, 1, 1, 2])
    assert (episode_of[world_model.other_windows(episode_of)] != episode_of).all()
    with pytest.raises(ValueError, match="one episode alone"):
        world_model.other_windows(np.zeros(3, dtype=int))


def test_latency_rows_compare_with_sync_under_the_same_delay(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = Scored.load(CONFIG, checkpoint)
    trials = short(scored)
    monkeypatch.setattr(Scored, "trials", lambda self, task, seeds: trials)
    sweep = latency.settings([4.0], [(1.0, 0.0), (1.0, 1.0)])
    assert [setting.mode for setting in sweep] == ["sync", "sync", "naive_async", "naive_async", "sai", "sai"]
    kept = Kept(tmp_path / "kept", seeds=1)
    rows: list[dict[str, Any]] = list(latency.run(CONFIG, checkpoint, "pick_place", 1, sweep, kept))
    monkeypatch.setattr(Scored, "run", None)  # a second start runs no trial again
    assert repr(list(latency.run(CONFIG, checkpoint, "pick_place", 1, sweep, kept))) == repr(rows)  # NaN and all
    sync, quick, naive, _, video, both = rows
    assert (quick["mode"], quick["passes_whole"]) == ("sync, one step a flow", 4)
    assert quick["latency_steps"] == np.ceil(4.0 * 4 / sync["passes_whole"]) < sync["latency_steps"]
    assert (sync["latency_steps"], sync["latency_steps_cut"], sync["points_lost"]) == (4.0, 0.0, 0.0)
    assert naive["latency_steps"] > 4.0  # what it acts on is old, though the robot never waits
    assert naive["held_share"] < sync["held_share"]
    assert sync["passes_blocking"] > video["passes_blocking"] > both["passes_blocking"] == 1
    assert sync["latency_steps"] > video["latency_steps"] > both["latency_steps"]
    assert latency.plot(rows, tmp_path / "latency.png").stat().st_size > 10_000


def test_one_step_a_flow_is_one_where_a_flow_stops_early_too() -> None:
    flow = FlowConfig(video_steps=3, video_stop=0.6, action_steps=5, action_stop=0.8)
    model = latency._with_one_step(small_model(config=replace(preset("tiny"), flow=flow)))
    assert RuntimeConfig().work(model.config.flow).whole == 4


@pytest.mark.parametrize(
    ("arguments", "whole"),
    [("", True), ("--delays 8 4 0", True), ("--delays 4", False), ("--ahead 0.5:0.25", False), ("--seeds 20", False),
     ("--task pick_place", False)],
)  # fmt: skip
def test_a_part_of_the_table_is_not_written_over_it(
    arguments: str, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = SimpleNamespace(path=tmp_path, checkpoint=lambda step: str(tmp_path / f"step_{step}"))
    config = replace(CONFIG, tasks={"pick_place": 1.0, "handover": 1.0})  # handover is the longer
    monkeypatch.setattr("embodichain.app.commands.checkpoints.find_checkpoint", lambda checkpoint: (folder, 0, config))
    monkeypatch.setattr(latency, "run", lambda *of: iter(()))
    parser, given = argparse.ArgumentParser(), list[argparse.Namespace]()

    def finish(bench: str, rows: object, arguments: argparse.Namespace, *shown: object) -> int:
        given.append(arguments)
        return 0

    bench_policy.add_parsers(parser.add_subparsers(), finish)
    parsed = parser.parse_args(["latency", "runs/some", *arguments.split()])
    parsed.handler(parsed)
    assert (given[0].tasks is None) is whole


def test_what_was_kept_is_of_equal_settings_alone_and_a_file_that_is_damaged_counts_for_nothing(tmp_path: Path) -> None:
    path, calls = tmp_path / "kept", []

    def measured(*, code: str = "a", delay: float = 4.0) -> Measured:
        def measure() -> Measured:
            calls.append((code, delay))
            return [TrialResult(seed=len(calls), success=True, progress=1.0, steps=9)], {"answer_ms": 2.5}

        return Kept(path, code=code)({"delay": delay}, measure)

    first = measured()
    assert measured() == first
    measured(code="b")
    measured(delay=8.0)
    assert calls == [("a", 4.0), ("b", 4.0), ("a", 8.0)]
    (newest,) = (file for file in path.iterdir() if '"delay": 8.0' in file.read_text())
    newest.write_text(newest.read_text()[:-20])
    assert [measured(delay=8.0)[0][0].seed for _ in range(2)] == [4, 4]
    assert measured(code="b")[0][0].seed == 2


def test_unpaired_seeds_are_not_compared() -> None:
    one, other = ([TrialResult(seed=s, success=True, progress=1.0, steps=9)] for s in (1, 2))
    with pytest.raises(ValueError, match="paired seeds"):
        success_row(one, other)


@pytest.mark.parametrize("times", ["2:0", "0.5", "a:b", "0:1:0"])
def test_flow_times_that_are_none_are_refused_in_words(times: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "latency", "runs/none", "--ahead", times])
    assert f"argument --ahead: {times}: expected two flow times in [0, 1], as 1:0.5" in capsys.readouterr().err
