"""Principal components of tokens: what is kept, what comes back, and that models live on them."""

from __future__ import annotations

import pytest
import torch

from learner.build import build_model
from learner.config import DataSpec, ModelConfig
from learner.projections import FrameProjection
from learner.statistics import PrincipalComponents
from learner.testing import small_batch, small_model

TOKENS, CHANNELS, RANK = 5, 8, 3


def stream(rows: int = 400, noise: float = 0.0) -> torch.Tensor:
    """Tokens [n, L, C] that vary along three directions about a mean of each slot's own."""
    rng = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(CHANNELS, RANK, generator=rng)).Q
    spread = torch.tensor([4.0, 2.0, 1.0])
    about = 10.0 * torch.randn(TOKENS, CHANNELS, generator=rng)
    tokens = about + (spread * torch.randn(rows, TOKENS, RANK, generator=rng)) @ directions.T
    return tokens + noise * torch.randn(tokens.shape, generator=rng)


def everywhere(x: torch.Tensor) -> torch.Tensor:
    return torch.ones(*x.shape[:2], 1, dtype=torch.bool)


def taught(x: torch.Tensor, components: int, parts: int = 1) -> PrincipalComponents:
    """Statistics that saw `x` twice: for the basis, and for mean and scale along it."""
    kept = PrincipalComponents(TOKENS, CHANNELS, components, basis_adds=parts)
    for part in (*x.chunk(parts), *x.chunk(parts)):
        kept.add(kept.sums(part, everywhere(part)))
    return kept


def test_they_are_of_unit_variance_in_every_slot_and_bring_back_what_varies() -> None:
    x = stream()
    x[:, 0] = x[:, 0].mean(0) + 0.05 * (x[:, 0] - x[:, 0].mean(0))  # a slot in which little happens
    kept = taught(x, RANK)
    seen = kept.normalise(x)
    assert seen.shape == (len(x), TOKENS, RANK)
    torch.testing.assert_close(seen.mean(0), torch.zeros(TOKENS, RANK), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.std(0, correction=0), torch.ones(TOKENS, RANK), atol=1e-3, rtol=0)
    torch.testing.assert_close(kept.restore(seen), x, atol=1e-4, rtol=0)


def test_the_first_ones_carry_most_of_what_varies() -> None:
    x = stream()
    fewer = taught(x, 1)
    lost = (fewer.restore(fewer.normalise(x)) - x).square().sum(-1).mean()
    assert float(lost) == pytest.approx(2.0**2 + 1.0**2, rel=0.1)  # all but the first direction


def test_parts_add_up_to_the_whole_and_what_is_masked_is_not_looked_at() -> None:
    x = stream(noise=0.1)
    whole, parts = taught(x, RANK), taught(x, RANK, parts=4)
    torch.testing.assert_close(parts.normalise(x), whole.normalise(x), atol=1e-4, rtol=0)
    spoilt = torch.cat((x, torch.full_like(x, float("nan"))))
    seen = torch.cat((everywhere(x), ~everywhere(x)))
    masked = PrincipalComponents(TOKENS, CHANNELS, RANK, basis_adds=1)
    for _ in range(2):
        masked.add(masked.sums(spoilt, seen))
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(masked.state_dict()[name], tensor, msg=name)


def test_a_direction_that_does_not_vary_is_not_blown_up_and_means_are_not_rounded() -> None:
    x = stream()
    kept = taught(x, CHANNELS)
    assert float(kept.normalise(x)[..., RANK:].abs().max()) < 1e-2
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(kept.restore(kept.normalise(x)), x, atol=1e-4, rtol=0)


def test_a_checkpoint_in_mid_stream_goes_on_as_if_nothing_had_been() -> None:
    x = stream(noise=0.1)
    whole = taught(x, RANK, parts=4)
    half = PrincipalComponents(TOKENS, CHANNELS, RANK, basis_adds=4)
    for i, part in enumerate((*x.chunk(4), *x.chunk(4))):
        half.add(half.sums(part, everywhere(part)))
        if i in (1, 5):
            state = half.state_dict()
            half = PrincipalComponents(TOKENS, CHANNELS, RANK, basis_adds=4)
            half.load_state_dict(state)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(half.state_dict()[name], tensor, msg=name)


@pytest.mark.parametrize("kind", ["clwm", "flow_policy"])
def test_a_model_sees_few_channels_and_speaks_of_all(kind: str) -> None:
    batch = small_batch()
    model = small_model(kind=kind, components=3)
    assert model.preprocess.observe(batch)
    state = torch.Generator().manual_seed(0)
    memory = model.initial_memory(batch.size)
    memory = model.observe(memory, batch.frame(0), batch.previous_action[:, 0], batch.previous_mask[:, 0])
    imagined = model.imagine(memory, batch.frame(0), state)
    chunk = model.act(memory, batch.frame(0), imagined, state)
    assert chunk.shape == batch.action[:, 0].shape
    if kind == "clwm":
        assert imagined is not None
        assert imagined.shape == batch.tokens[:, 0].shape
        again = model.preprocess.token.restore(model.preprocess.token.normalise(imagined))
        torch.testing.assert_close(again, imagined, atol=1e-4, rtol=1e-4)  # it lies in what the components span


def test_more_components_than_channels_are_refused() -> None:
    data = DataSpec(tokens=TOKENS, channels=CHANNELS)
    with pytest.raises(ValueError, match=r"model\.components=9: expected at most the 8 channels"):
        build_model(ModelConfig(components=9), data)


@pytest.mark.parametrize("mode", ["grouped", "packed", "token"])
def test_patches_share_a_small_network_and_keep_their_places(mode: str) -> None:
    torch.manual_seed(0)
    data = DataSpec(tokens=6, channels=CHANNELS)
    config = ModelConfig(width=16, heads=2, frame_mode=mode, frame_tokens=2, patch_width=4, components=3)
    projection = FrameProjection(config, data, both_ways=True)
    frame = torch.randn(2, data.tokens, 3)
    made = projection(frame)
    changed = frame.clone()
    changed[:, 4] += 1.0
    moved = (projection(changed) - made).abs().amax(dim=(0, 2)) > 0
    expected = {"grouped": [False, True], "packed": [True, True], "token": [False] * 4 + [True, False]}
    assert moved.tolist() == expected[mode]
    assert projection.out(made).shape == (2, data.tokens * 3)
    assert projection.stem is not None
    alike = projection.stem(torch.ones(data.tokens, 3))
    assert (alike[0] - alike[1]).abs().max() > 1e-3  # the same patch elsewhere is something else
