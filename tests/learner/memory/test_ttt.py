from dataclasses import replace

import pytest
import torch

from learner.config import MemoryConfig, preset
from learner.memory.ttt import FastWeights, GeluPair, TTTLayer, dual_read, inner_gradients, inner_read, primal_step

CONFIG = MemoryConfig(dim=6, lr=0.3, decay=0.8)


def layer(**changes) -> TTTLayer:
    torch.manual_seed(0)
    made = TTTLayer(10, replace(CONFIG, **changes)).double()
    with torch.no_grad():
        made.b1.normal_()
        made.b2.normal_()
    return made


def window(frames=5, n=2, c=2, batch=3, seed=1):
    g = torch.Generator().manual_seed(seed)
    context, written = torch.randn(2, batch, frames, n, 10, generator=g, dtype=torch.float64)
    condition = torch.randn(batch, frames, c, 10, generator=g, dtype=torch.float64)
    exists = torch.ones(batch, frames, dtype=torch.bool)
    exists[0, :2] = False
    shown = torch.rand(batch, frames, generator=g) < 0.6
    return context, written, exists, condition, shown


def test_by_default_the_gate_begins_at_a_tenth_and_the_inner_mlp_is_four_times_as_wide():
    """The paper's alpha = 0.1, one per channel, and expansion; no named size has others."""
    for size in ("tiny", "laptop", "base", "large"):
        assert preset(size).memory.alpha == MemoryConfig().alpha == 0.1
    made = TTTLayer(10, MemoryConfig(dim=6))
    assert torch.equal(made.alpha.detach(), torch.full((10,), 0.1))
    assert made.w1.shape == (6, 24)
    assert made.w2.shape == (24, 6)


def test_gelu_pair_equals_torch_and_its_own_numeric_derivatives():
    z = torch.linspace(-6, 6, 61, dtype=torch.float64, requires_grad=True)
    value, slope = GeluPair.apply(z)
    torch.testing.assert_close(value, torch.nn.functional.gelu(z, approximate="tanh"))
    (expected,) = torch.autograd.grad(torch.nn.functional.gelu(z, approximate="tanh").sum(), z)
    torch.testing.assert_close(slope, expected)
    assert torch.autograd.gradcheck(GeluPair.apply, z)


def test_gradient_factors_equal_autograd():
    memory = layer()
    g = torch.Generator().manual_seed(3)
    k, v = torch.randn(2, 1, 4, 6, generator=g, dtype=torch.float64)
    weights = [w.detach().unsqueeze(0).requires_grad_() for w in memory.initial]
    w = FastWeights(w1=weights[0], b1=weights[1], w2=weights[2], b2=weights[3])
    grads = torch.autograd.grad((inner_read(w, k) - v).square().sum(), weights)
    stepped = primal_step(w, w, inner_gradients(w, k, v), torch.full((1, 4), 0.1).double(), torch.ones(1).double())
    for before, grad, after in zip(weights, grads, stepped, strict=True):
        torch.testing.assert_close(after, before - 0.1 * grad)


def test_dual_read_equals_primal_read():
    memory = layer()
    g = torch.Generator().manual_seed(4)
    k, v, q = torch.randn(3, 2, 5, 6, generator=g, dtype=torch.float64)
    rate = torch.rand(2, 5, generator=g, dtype=torch.float64)
    factors = inner_gradients(memory.initial, k, v)
    written = primal_step(memory.start(2), memory.initial, factors, rate, torch.ones(2).double())
    dual = dual_read(memory.initial, factors, q, rate[:, None].expand(2, 5, 5))
    torch.testing.assert_close(dual, inner_read(written, q), atol=1e-10, rtol=1e-8)


def test_scan_in_dual_form_equals_frame_by_frame_and_so_do_its_gradients():
    memory = layer()
    inputs = window()
    results = []
    for run in (memory.scan, memory.scan_frames):
        memory.zero_grad(set_to_none=True)
        context, condition = run(*inputs)
        assert condition is not None
        (context.square().sum() + condition.sin().sum()).backward()
        results.append((context, condition, {n: p.grad for n, p in memory.named_parameters()}))
    for dual, primal in zip(results[0][:2], results[1][:2], strict=True):
        torch.testing.assert_close(dual, primal, atol=1e-5, rtol=1e-5)
    for name, grad in results[0][2].items():
        torch.testing.assert_close(grad, results[1][2][name], atol=1e-5, rtol=1e-5, msg=name)


def test_online_rule_takes_gradients_at_the_current_state():
    memory = layer(rule="online", decay=1.0)
    _, written, exists, _, _ = window(frames=3, batch=1)
    exists[:] = True
    state = memory.start(1)
    for t in range(3):
        k, v = memory.keys(written[:, t])
        weights = [w.detach().requires_grad_() for w in state]
        at = FastWeights(w1=weights[0], b1=weights[1], w2=weights[2], b2=weights[3])
        grads = torch.autograd.grad((inner_read(at, k) - v).square().sum(), weights)
        rate = CONFIG.lr / 2
        new = [w - rate * grad for w, grad in zip(weights, grads, strict=True)]
        state = memory.write(state, written[:, t], exists[:, t])
        for have, want in zip(state, new, strict=True):
            torch.testing.assert_close(have, want)


def test_a_frame_reads_nothing_of_later_frames_and_nothing_of_imagined_ones():
    memory = layer()
    context, written, exists, condition, shown = window()
    base, base_condition = memory.scan(context, written, exists, condition, shown)
    assert base_condition is not None
    later = written.clone()
    later[:, 3:] += 1.0
    other, _ = memory.scan(context, later, exists, condition, shown)
    torch.testing.assert_close(other[:, :3], base[:, :3])
    assert not torch.allclose(other[:, 3:], base[:, 3:])
    imagined, _ = memory.scan(context, written, exists, condition + 5.0, shown)
    torch.testing.assert_close(imagined, base)
    elsewhere = condition.clone()
    elsewhere[:, 1] += 5.0
    _, forked = memory.scan(context, written, exists, elsewhere, shown)
    assert forked is not None
    torch.testing.assert_close(forked[:, 2:], base_condition[:, 2:])


def test_a_frame_that_does_not_exist_writes_nothing():
    memory = layer()
    context, written, exists, condition, shown = window()
    base, _ = memory.scan(context, written, exists, condition, shown)
    padded = written.clone()
    padded[0, :2] = 100.0
    torch.testing.assert_close(memory.scan(context, padded, exists, condition, shown)[0], base)


def test_writing_leaves_the_state_it_came_from_alone():
    memory = layer()
    state = memory.start(2)
    state = memory.write(state, torch.randn(2, 3, 10).double(), torch.ones(2, dtype=torch.bool))
    before = [w.clone() for w in state]
    memory.write(state, torch.randn(2, 3, 10).double(), torch.ones(2, dtype=torch.bool))
    for old, now in zip(before, state, strict=True):
        assert torch.equal(old, now)


def test_one_write_lowers_the_inner_loss_of_what_was_written():
    memory = layer()
    z = torch.randn(1, 1, 10, generator=torch.Generator().manual_seed(5)).double()
    k, v = memory.keys(z)
    state = memory.start(1)
    before = (inner_read(state, k) - v).square().sum()
    state = memory.write(state, z, torch.ones(1, dtype=torch.bool))
    assert (inner_read(state, k) - v).square().sum() < 0.8 * before


STEPS = [500, pytest.param(10_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("rule", "decay"), [("initial", 0.7), ("online", 0.7), ("online", 1.0)])
def test_thousands_of_frames_stay_finite_and_bounded(rule, decay, steps):
    memory = layer(rule=rule, decay=decay)
    memory, g = memory.float(), torch.Generator().manual_seed(6)
    stream = torch.randn(steps, 1, 1, 10, generator=g)
    mask = torch.ones(1, dtype=torch.bool)
    with torch.inference_mode():
        state = memory.start(1)
        sizes = []
        for t in range(steps):
            state = memory.write(state, stream[t], mask)
            if t % 100 == 99:
                sizes.append(max(float(w.abs().max()) for w in state))
        read = memory.read(state, stream[0])
    assert torch.isfinite(read).all()
    assert sum(w.numel() for w in state) == sum(w.numel() for w in memory.initial)
    assert max(sizes) < 100.0
