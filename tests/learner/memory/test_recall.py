"""What a memory is for: the last frame's action depends on a cue that only the first frame showed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from embodichain.contracts import UnifiedAction, WindowSpec
from learner import ConditionConfig, MemoryConfig, TrainConfig, TrainState, prepare_batch, preset
from learner.batch import TensorBatch
from learner.build import build_model
from learner.testing import fake_batch, fake_data, fake_text

FRAMES, SPEC = 5, WindowSpec(frames=5, tau=2, chunk=2)
CUE = 0.4  # rad
STEPS, TRAIN = 120, TrainConfig(lr=3e-3, ema=0.9)


def cued(seed: int, size: int) -> TensorBatch:
    """Windows in which nothing moves until the last chunk, whose joint targets have the cue's sign."""
    rng = np.random.default_rng(seed)
    batch = fake_batch(rng, size, spec=SPEC)
    sign = rng.choice((-1.0, 1.0), size=size).astype(np.float32)
    tokens, action = np.zeros_like(batch.tokens), np.zeros_like(batch.action)
    tokens[:, 0, 0, :4] = sign[:, None]
    for arm in (0, 1):
        action[:, -1, :, UnifiedAction.joints(arm)] = CUE * sign[:, None, None]
    mask = np.zeros_like(batch.action_mask)
    mask[:, -1] = True
    proprio, previous = np.zeros_like(batch.proprio), np.zeros_like(batch.previous_action)
    batch = replace(batch, tokens=tokens, action=action, action_mask=mask, proprio=proprio, previous_action=previous)
    return prepare_batch(batch, fake_text(batch.instruction))


def right(model, batch: TensorBatch) -> float:
    """Share of windows whose last chunk has the cue's sign."""
    memory, rng = model.initial_memory(batch.size), torch.Generator().manual_seed(0)
    for t in range(FRAMES):
        memory = model.observe(memory, batch.frame(t), batch.previous_action[:, t], batch.previous_mask[:, t])
    joints = UnifiedAction.joints(0)
    chunk = model.act(memory, batch.frame(FRAMES - 1), None, rng)[:, 0, joints].mean(-1)
    return float((chunk.sign() == batch.action[:, -1, 0, joints].mean(-1).sign()).float().mean())


@pytest.mark.parametrize(
    "kind", ["ttt", "none", pytest.param("kv", marks=pytest.mark.slow), pytest.param("window", marks=pytest.mark.slow)]
)
def test_a_cue_is_remembered_by_what_has_a_memory_that_reaches_back_to_it(kind):
    memory = MemoryConfig(kind=kind, dim=16, layers=(0, 1), decay=1.0, lr=0.5, window=FRAMES - 1)
    config = replace(preset("tiny"), memory=memory, condition=ConditionConfig(drop=1.0), video_weight=0.0)
    state = TrainState(build_model(config, fake_data(fake_batch(np.random.default_rng(0), 1, spec=SPEC))), TRAIN)
    for i in range(STEPS):
        state.step(cued(i, 32), i / STEPS)
    share = right(state.ema, cued(10_000, 128))
    if kind in ("ttt", "kv"):
        assert share > 0.95
    else:
        assert 0.3 < share < 0.7
