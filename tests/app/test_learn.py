"""The learner's loop and the thread around Ray Train: ranks that wait together, that resume, that are started again."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from embodichain.app import learn
from embodichain.app.config import load_config
from embodichain.app.learn import LearnerJob, LearnerLoop, LearnerThread
from learner.batch import TensorBatch, prepare_batch
from learner.checkpoint import MARKER
from learner.testing import fake_batch, fake_text


@pytest.mark.parametrize(("checkpoints", "fits"), [([], 1), ([10, 20], 3)])
def test_the_ranks_are_started_again_as_long_as_they_bring_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: list[int], fits: int
) -> None:
    """Each `_fit` stands for what Ray Train gives up after: so many restarts in a row."""
    made, calls = iter(checkpoints), list[int]()

    def fit(self: LearnerThread) -> None:
        calls.append(1)
        for step in made:
            checkpoint = tmp_path / "checkpoints" / f"step_{step}"
            checkpoint.mkdir(parents=True)
            (checkpoint / MARKER).write_text("")
            break
        raise RuntimeError("a rank died")

    monkeypatch.setattr(LearnerThread, "_fit", fit)
    parts: dict[str, Any] = {"shards": [], "board": None, "tokens": 1, "channels": 1, "encoder_id": ""}
    thread = LearnerThread(LearnerJob(config=load_config("configs/tiny.yaml"), folder=tmp_path, **parts))
    thread.run()
    assert str(thread.error) == "a rank died"
    assert len(calls) == fits


def test_a_rank_without_data_hears_of_the_stop_that_rank_0_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks as two threads: one has three batches, the other one, and then no more come."""
    batches, steps, phases = {0: iter(range(3)), 1: iter(range(1))}, list[int](), list[str]()
    meeting, parts = threading.Barrier(2, timeout=20), dict[int, torch.Tensor]()
    rank_of = dict[int, int]()

    def all_reduce(total: torch.Tensor) -> None:
        parts[rank_of[threading.get_ident()]] = total.clone()
        meeting.wait()
        total.copy_(parts[0] + parts[1])
        meeting.wait()

    def post(status: dict[str, Any], metrics: object) -> bool:
        phases.append(status["phase"])
        return status["phase"] == "waiting for data" and phases.count("waiting for data") > 2

    state = SimpleNamespace(model=torch.nn.Linear(1, 1), skipped=0)
    nothing = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(learn, "BATCH_TIMEOUT_S", 0.05)
    monkeypatch.setattr(learn, "TextEncoder", lambda: None)
    monkeypatch.setattr(learn, "ReplayClient", lambda *_, **__: nothing)
    monkeypatch.setattr(learn, "save_checkpoint", lambda *_: None)
    monkeypatch.setattr(learn.dist, "all_reduce", all_reduce)
    monkeypatch.setattr(learn.ray, "get", lambda answer, timeout: answer)
    monkeypatch.setattr(LearnerLoop, "_restore_or_create", lambda self: state)
    monkeypatch.setattr(LearnerLoop, "_train_step", lambda self, *_: steps.append(self.rank))
    info = SimpleNamespace(uses=1, fresh_pairs=1)
    monkeypatch.setattr(
        LearnerLoop, "_make_batch", lambda self, timeout_s: next(((each, info) for each in batches[self.rank]), None)
    )
    board = SimpleNamespace(post=SimpleNamespace(remote=post))
    job_parts: dict[str, Any] = {"shards": [], "board": board, "tokens": 1, "channels": 1, "encoder_id": ""}
    job = LearnerJob(config=load_config("configs/tiny.yaml"), folder=tmp_path, **job_parts)

    def rank(number: int) -> None:
        rank_of[threading.get_ident()] = number
        LearnerLoop(job, number, 2).run()

    threads = [threading.Thread(target=rank, args=(number,), daemon=True) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(steps) == [0, 1]
    assert phases[-1] == "finished"


def learned(loop: LearnerLoop) -> dict[str, torch.Tensor]:
    """All that decides how training goes on: weights, their average, normaliser, optimiser, noise generators."""
    state = loop.state
    out = {f"model/{name}": value for name, value in state.model.state_dict().items()}
    out |= {f"ema/{name}": value for name, value in state.ema.state_dict().items()}
    out |= {f"rng/{slot}": value for slot, value in state.slots.states().items()}
    for name, parameter in state.model.named_parameters():
        out |= {f"{key}/{name}": value for key, value in state.optimiser.state[parameter].items()}
    return {name: value.clone() for name, value in out.items()}


def test_a_resumed_learner_goes_on_with_all_that_it_had_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that took up its counters alone, with fresh weights, every comparison here fails."""
    monkeypatch.setattr(learn, "ReplayClient", lambda *_, **__: None)
    config = load_config("configs/tiny.yaml", ["learner.train.accumulate=2"])
    parts: dict[str, Any] = {"shards": [], "board": None, "tokens": 4, "channels": 12, "encoder_id": "fake"}
    job = LearnerJob(config=config, folder=tmp_path, **parts)
    rng = np.random.default_rng(0)
    batches = [fake_batch(rng, 8, spec=config.window) for _ in range(4)]
    tensors = [prepare_batch(batch, fake_text(batch.instruction, 384)) for batch in batches]
    loop = LearnerLoop(job, 0, 1)
    fresh = learned(loop)
    info: Any = SimpleNamespace(age_mean_s=0.0)

    def train(who: LearnerLoop, batch: TensorBatch) -> None:
        who._train_step(batch, info, who._agree(stop=False, save=False, info=None))

    for batch in tensors[:3]:
        train(loop, batch)
    loop.publish()
    assert not any(torch.equal(learned(loop)[name], value) for name, value in fresh.items() if name.startswith("rng/"))
    resumed = LearnerLoop(job, 0, 1)
    assert (resumed.counters.step, resumed.published, resumed.state.updates) == (3, 3, loop.state.updates)
    for further in (0, 1):  # as they are, and after one more step
        for batch in tensors[3 : 3 + further]:
            train(loop, batch)
            train(resumed, batch)
        straight, restored = learned(loop), learned(resumed)
        assert straight.keys() == restored.keys()
        assert any(name.startswith("exp_avg_sq/") for name in restored)
        assert int(restored["model/preprocess.batches"]) == loop.state.steps
        for name, value in straight.items():
            assert torch.equal(value, restored[name]), name


def test_experience_throughput_is_first_uses_over_the_last_iterations() -> None:
    counters = learn.Counters()
    assert counters.throughput == 0.0
    fresh = [7] * 300 + [3] * (learn.THROUGHPUT_STEPS - 1) + [103]
    counters.recent.extend(fresh[:50])
    assert counters.throughput == 7.0  # of as many iterations as there were
    counters.recent.extend(fresh[50:])
    assert counters.throughput == pytest.approx(3.0 + 100 / learn.THROUGHPUT_STEPS)
