from dataclasses import fields, replace

import pytest
import torch

from learner.config import MemoryConfig
from learner.memory import CacheLayer, MemoryLayer, build_memories, state_bytes
from learner.testing import small_batch, small_model

CONFIG = MemoryConfig(dim=8, lr=0.3, decay=0.8, window=2, layers=(0,))
KINDS = ["ttt", "kv", "window"]
ONES = torch.ones(3, dtype=torch.bool)


def layer(kind, **changes):
    torch.manual_seed(0)
    made = build_memories(10, replace(CONFIG, kind=kind, **changes))["0"].double()
    assert isinstance(made, MemoryLayer)
    torch.nn.init.normal_(made.theta_kv.weight)
    return made


def window(frames=5, n=2, c=3, batch=3):
    g = torch.Generator().manual_seed(1)
    context, written = torch.randn(2, batch, frames, n, 10, generator=g, dtype=torch.float64)
    condition = torch.randn(batch, frames, c, 10, generator=g, dtype=torch.float64)
    exists = torch.ones(batch, frames, dtype=torch.bool)
    exists[0, :2] = False
    return context, written, exists, condition, torch.rand(batch, frames, generator=g) < 0.6


def tensors(state):
    return {f.name: getattr(state, f.name) for f in fields(state) if isinstance(getattr(state, f.name), torch.Tensor)}


@pytest.mark.parametrize("kind", KINDS)
def test_scan_over_a_window_equals_frame_by_frame_and_so_do_its_gradients(kind):
    memory, inputs = layer(kind), window()
    results = []
    for run in (memory.scan, memory.scan_frames):
        memory.zero_grad(set_to_none=True)
        context, condition = run(*inputs)
        (context.square().sum() + condition.sin().sum()).backward()
        results.append((context, condition, {n: p.grad for n, p in memory.named_parameters()}))
    for whole, steps in zip(results[0][:2], results[1][:2], strict=True):
        torch.testing.assert_close(whole, steps, atol=1e-5, rtol=1e-5)
    for name, grad in results[0][2].items():
        torch.testing.assert_close(grad, results[1][2][name], atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fork_leaves_the_long_term_state_alone_and_the_next_observation_forgets_it(kind):
    memory = layer(kind)
    context, written, _, condition, _ = window()
    state = memory.write(memory.start(3), written[:, 0], ONES)
    before = {name: t.clone() for name, t in tensors(state).items()}
    working = memory.fork(state, condition[:, 0], ONES)
    assert not torch.allclose(memory.read(working, context[:, 0]), memory.read(state, context[:, 0]))
    for name, tensor in tensors(state).items():
        assert torch.equal(tensor, before[name]), name
    unseen = memory.fork(state, condition[:, 0], ~ONES)
    torch.testing.assert_close(memory.read(unseen, context[:, 0]), memory.read(state, context[:, 0]))


@pytest.mark.parametrize("kind", ["kv", "window"])
def test_predicted_slots_are_purged_by_the_next_observation(kind):
    memory = layer(kind)
    assert isinstance(memory, CacheLayer)
    _, written, _, condition, _ = window()
    state = memory.write(memory.start(3), written[:, 0], ONES)
    working = memory.fork(state, condition[:, 0], ONES)
    assert working.predicted == condition.shape[2]
    plain, after = (memory.write(s, written[:, 1], ONES) for s in (state, working))
    assert (after.predicted, after.frames) == (0, 2)
    for name, tensor in tensors(after).items():
        assert torch.equal(tensor, tensors(plain)[name]), name


def test_the_cache_reads_as_softmax_attention_over_rotated_slots_and_one_empty_one():
    """A slow reference: every query against every slot, in loops."""
    memory = layer("kv", heads=2)
    _, written, _, _, _ = window(frames=3, batch=1)
    state = memory.start(1)
    for t in range(3):
        state = memory.write(state, written[:, t], ONES[:1])
    x = torch.randn(1, 1, 10, dtype=torch.float64)
    d, half = 4, 2

    def turned(v, time):
        angle = time * 1e4 ** (-torch.arange(half) / half)
        a, b = v[:half], v[half:]
        return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()))

    read = []
    for head in range(2):
        part = slice(head * d, (head + 1) * d)
        q = turned(memory.theta_q(memory.norm(x))[0, 0, part], 2)
        scores, values = [torch.zeros((), dtype=torch.float64)], [torch.zeros(d, dtype=torch.float64)]
        for t in range(3):
            for i in range(2):
                k, v = memory.theta_kv(written[0, t, i]).chunk(2)
                scores.append(q @ turned(k[part], t) / d**0.5)
                values.append(v[part])
        read.append(torch.stack(scores).softmax(0) @ torch.stack(values))
    expected = x + torch.tanh(memory.alpha) * memory.theta_o(torch.cat(read))
    torch.testing.assert_close(memory.read(state, x), expected, atol=1e-6, rtol=1e-6)


def test_a_window_forgets_what_lies_before_it_and_a_cache_does_not():
    context, written, exists, _, _ = window()
    exists[:] = True
    changed = written.clone()
    changed[:, 0] += 1.0
    for kind, forgets in (("window", True), ("kv", False)):
        memory = layer(kind)
        a, b = (memory.scan(context, w, exists, None, None)[0][:, 3:] for w in (written, changed))
        assert torch.allclose(a, b) == forgets, kind


def test_state_grows_with_a_cache_only():
    model, batch = small_model(), small_batch()
    sizes: dict[str, list[int]] = {}
    for kind in ("ttt", "kv", "window", "none"):
        model = small_model(memory=MemoryConfig(dim=8, kind=kind, window=2))
        memory = model.initial_memory(1)
        frame, sizes[kind] = small_batch(0, 1).frame(0), []
        for _ in range(6):
            memory = model.observe(memory, frame, batch.previous_action[:1, 0], batch.previous_mask[:1, 0])
            sizes[kind].append(state_bytes(memory.states))
    assert len(set(sizes["ttt"])) == 1
    assert len(set(sizes["kv"])) == 6
    assert len(set(sizes["window"][2:])) == 1
    assert sizes["none"] == [0] * 6
