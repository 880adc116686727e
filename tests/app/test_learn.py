"""The learner's loop and the thread around Ray Train: ranks wait together, and how long they are started again."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from embodichain.app import learn
from embodichain.app.config import load_config
from embodichain.app.learn import LearnerJob, LearnerLoop, LearnerThread
from learner.checkpoint import MARKER


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
