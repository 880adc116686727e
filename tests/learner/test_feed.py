from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from learner.batch import prepare_batch
from learner.feed import DeviceFeed
from learner.testing import fake_batch, fake_text


def test_on_a_cpu_the_tensors_are_the_arrays() -> None:
    batch, feed = fake_batch(np.random.default_rng(0), 4), DeviceFeed("cpu")
    batch.proprio, batch.action = np.ascontiguousarray(batch.proprio), np.ascontiguousarray(batch.action)
    tensors = feed.take(feed.put(prepare_batch(batch, fake_text(batch.instruction))))
    for name in ("tokens", "proprio", "action", "action_mask"):
        assert getattr(tensors, name).data_ptr() == getattr(batch, name).ctypes.data
    assert feed.allocate is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_batches_come_from_page_locked_memory_and_are_equal() -> None:
    feed = DeviceFeed("cuda")
    assert feed.allocate is not None
    array = feed.allocate((3, 2), np.dtype(np.float32))
    assert torch.from_numpy(array).is_pinned()
    for seed in range(20):
        batch = fake_batch(np.random.default_rng(seed), 16)
        for field in fields(batch):
            own = getattr(batch, field.name)
            if isinstance(own, np.ndarray):
                pinned = feed.allocate(own.shape, own.dtype)
                pinned[...] = own
                setattr(batch, field.name, pinned)
        text = fake_text(batch.instruction)
        moved, here = feed.take(feed.put(prepare_batch(batch, text))), prepare_batch(batch, text)
        for field in fields(here):
            assert torch.equal(getattr(moved, field.name).cpu(), getattr(here, field.name)), field.name
