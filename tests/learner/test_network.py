"""The noisy history: what of a window is noised in training, how often and how much."""

import pytest
import torch

from learner import ConditionConfig
from learner.blocks import FrameLayout, plain_attention
from learner.testing import small_batch, small_model


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_latents_are_noised_with_their_probability_at_uniform_levels():
    """(1 - s) noise + s z, with s ~ U[noise_low, 1] once for a frame; the others stay as they are."""
    model = small_model(condition=ConditionConfig(noise_low=0.5))
    clean = torch.randn(200, 50, 5, 8, generator=generator())
    z, level = model.augment(clean, 0.3, torch.Generator().manual_seed(1))
    noised = level < 1.0
    assert noised.float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(z[~noised], clean[~noised])
    s = level[noised].sort().values
    torch.testing.assert_close(s, torch.linspace(0.5, 1.0, len(s)), atol=0.02, rtol=0.0)
    some = level < 0.95
    s = level[some][..., None, None]
    noise = (z[some] - s * clean[some]) / (1.0 - s)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.02)
    assert noise.std().item() == pytest.approx(1.0, abs=0.02)
    assert (noise * clean[some]).mean().item() == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_the_history_that_the_memory_is_written_with_is_noised_and_what_reads_it_is_not(probability, monkeypatch):
    model, batch = small_model(condition=ConditionConfig(history_noise_prob=probability)), small_batch()
    layer = model.memory_before(1)
    scan, scanned = layer.scan, []

    def watched(*inputs):
        scanned.append(inputs)
        return scan(*inputs)

    monkeypatch.setattr(layer, "scan", watched)
    size = (batch.size, batch.frames)
    x = torch.randn(*size, model.layout.length, model.config.width, generator=generator())
    past, shown = torch.zeros(*size, model.config.width), torch.ones(size, dtype=torch.bool)
    model.trunk(x, past, batch.frame_mask[:, :-1], shown, generator())
    ((context, written, *_),) = scanned
    clean = model.written(layer, context, past)
    assert torch.equal(written, model.augment(clean, probability, generator())[0])
    assert torch.equal(written, clean) == (probability == 0.0)
    frames, _ = model.blocks[0](x.flatten(0, 1), model.mask)
    torch.testing.assert_close(context, frames.view_as(x)[:, :, model.layout.context])


def test_training_cannot_outgrow_the_noise_of_the_history():
    """However large the executed actions and the features are written, noise of unit size is as large beside them."""
    model, batch = small_model(), small_batch()
    layer = model.memory_before(1)
    assert not list(layer.norm.parameters())
    context = torch.randn(batch.size, batch.frames, 3, model.config.width, generator=generator())
    past = torch.randn(batch.size, batch.frames, model.config.width, generator=generator())
    for scale in (1.0, 1000.0):
        written = model.written(layer, scale * context, scale * past)
        torch.testing.assert_close(written.square().mean(-1), torch.ones(written.shape[:-1]), atol=1e-3, rtol=0.0)
    assert not torch.equal(written[..., -1, :], layer.norm(scale * context)[..., -1, :])
    assert torch.equal(written[..., :-1, :], layer.norm(scale * context)[..., :-1, :])


def test_attention_by_its_definition_is_the_fused_one():
    """What a GPU computes for short sequences, under the mask of a frame and without one."""
    layout = FrameLayout(frame=4, action=2, draws=2)
    q, k, v = torch.randn(3, 3, 2, layout.length, 8, dtype=torch.float64, generator=generator())
    for mask in (layout.mask().double(), None):
        fused = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        torch.testing.assert_close(plain_attention(q, k, v, mask), fused)
