"""Two ranks over gloo take the steps of one: replicas and shards, with checkpoints that a single process reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from learner import MemoryConfig, TrainConfig, TrainState, load_state, save_checkpoint
from learner.parallel import Ranks
from learner.testing import small_batch, small_model

STEPS, SAVED_AT = 3, 2
KINDS = ["ddp", "fsdp2"]
RANK = """
import json, sys
import torch
from tests.learner.test_parallel import KINDS, steps
rank, folder = int(sys.argv[1]), sys.argv[2]
store = torch.distributed.FileStore(folder + "/store", 2)
torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
said = {kind: steps(rank, 2, kind, folder + "/" + kind) for kind in KINDS}
torch.distributed.destroy_process_group()
print(json.dumps(said))
"""


def steps(rank: int, world: int, kind: str, checkpoint: str) -> dict[str, Any]:
    """Losses of some steps, and of the last one once more from a checkpoint before it.

    The very first batch is not finite, in the last rank's part alone: all ranks have to skip it.
    """
    ranks = Ranks(rank=rank, world=world, kind=kind)
    config = TrainConfig(accumulate=2 // world, ema=0.5)
    state = TrainState(small_model(normaliser_batches=2), config, ranks=ranks)
    spoilt = small_batch(STEPS, 8)
    spoilt.tokens[-1, 0] = float("nan")
    state.step(spoilt.split(world)[rank], 0.0)
    curve = []
    for i in range(STEPS):
        if i == SAVED_AT:
            save_checkpoint(checkpoint, state)
        curve.append(state.step(small_batch(i, 8).split(world)[rank], i / STEPS))
    if world > 1:
        torch.distributed.barrier()
    resumed, _ = load_state(checkpoint, ranks=ranks)
    return {"curve": curve, "again": resumed.step(small_batch(SAVED_AT, 8).split(world)[rank], SAVED_AT / STEPS)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """One process with two micro-batches: the reference, and its checkpoint."""
    path = tmp_path_factory.mktemp("alone") / "checkpoint"
    return steps(0, 1, "none", str(path)), path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What rank 0 of two says for every kind, and the folder of their checkpoints."""
    folder = tmp_path_factory.mktemp("pair")
    root = Path(__file__).parents[2]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(folder)],
            cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=300) for process in started]
    for process, (_, errors) in zip(started, said, strict=True):
        assert process.returncode == 0, errors
    return json.loads(said[0][0].splitlines()[-1]), folder


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def assert_same_arrays(one: Path, other: Path) -> None:
    a, b = (load_state(path)[0] for path in (one, other))
    assert (a.steps, a.skipped) == (b.steps, b.skipped) == (SAVED_AT + 1, 1)
    for x, y in ((a.model, b.model), (a.ema, b.ema)):
        for name, tensor in x.state_dict().items():
            assert (tensor - y.state_dict()[name]).abs().max() < 1e-4, name


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_take_the_steps_of_one_process_and_leave_its_checkpoint(kind, alone, pair):
    result = pair[0][kind]
    for here, reference in zip(result["curve"], alone[0]["curve"], strict=True):
        assert here == pytest.approx(reference, rel=1e-4)
    assert result["again"] == pytest.approx(result["curve"][SAVED_AT], rel=1e-5)  # with both ranks' noise
    assert_same_arrays(pair[1] / kind, alone[1])


@pytest.mark.parametrize("kind", KINDS)
def test_one_rank_in_a_group_takes_the_same_steps_and_resumes(kind, alone, group, tmp_path):
    result = steps(0, 1, kind, str(tmp_path / "checkpoint"))
    for here, reference in zip(result["curve"], alone[0]["curve"], strict=True):
        assert here == pytest.approx(reference, rel=1e-4)
    assert result["again"] == pytest.approx(result["curve"][SAVED_AT], rel=1e-5)
    assert_same_arrays(tmp_path / "checkpoint", alone[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", [MemoryConfig(kind="none"), MemoryConfig(layers=())])
def test_a_model_without_memory_takes_the_same_steps_in_a_group(kind, memory, group, tmp_path):
    """Nothing reads `past_in` then; a checkpoint has it all the same, as it always had."""
    curves = []
    for ranks in (Ranks(), Ranks(kind=kind)):
        state = TrainState(small_model(memory=memory), TrainConfig(), ranks=ranks)
        curves.append([state.step(small_batch(i, 8), i / STEPS) for i in range(STEPS)])
    for here, reference in zip(curves[1], curves[0], strict=True):
        assert here == pytest.approx(reference, rel=1e-4)
    resumed, _ = load_state(save_checkpoint(tmp_path / "c", state))
    assert "past_in.weight" in resumed.model.state_dict()
    assert resumed.step(small_batch(STEPS, 8), 1.0)["skipped"] == 0.0


def test_one_process_resumes_bit_for_bit_with_every_micro_batchs_noise(alone):
    assert alone[0]["again"] == alone[0]["curve"][SAVED_AT]


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="parallel='zero'"):
        Ranks(kind="zero")
