"""The thread around Ray Train: how long it starts the ranks again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embodichain.app.config import load_config
from embodichain.app.learn import LearnerJob, LearnerThread
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
