"""Several cameras: their tokens stand in slots of their own, and a model can tell the slots apart."""

from __future__ import annotations

import pytest
import torch

from learner.build import build_model
from learner.config import DataSpec, ModelConfig
from learner.projections import FrameProjection

PATCHES, CHANNELS = 4, 6
DATA = DataSpec(tokens=2 * PATCHES, channels=CHANNELS, chunk=8, tau=4, text_dim=8)


@pytest.mark.parametrize("mode", ["token", "grouped", "packed"])
def test_the_same_picture_from_another_camera_is_another_input(mode: str) -> None:
    torch.manual_seed(0)
    inward = FrameProjection(ModelConfig(width=16, heads=2, frame_mode=mode, frame_tokens=2), DATA)
    view, other = torch.randn(1, PATCHES, CHANNELS), torch.randn(1, PATCHES, CHANNELS)
    straight, crossed = inward(torch.cat([view, other], dim=1)), inward(torch.cat([other, view], dim=1))
    if mode == "token":  # attention does not know an order: compare as sets, token by token
        straight, crossed = straight.sort(dim=1).values, crossed.sort(dim=1).values
    assert (straight - crossed).abs().max() > 1e-2
    if mode == "token":  # and it is the learned position of the slot that tells them apart
        torch.nn.init.zeros_(inward.position)
        same = inward(torch.cat([view, other], dim=1)).sort(dim=1).values
        torch.testing.assert_close(same, inward(torch.cat([other, view], dim=1)).sort(dim=1).values)


def test_a_group_reads_its_own_tokens_alone_by_a_map_of_its_own() -> None:
    torch.manual_seed(0)
    config = ModelConfig(width=16, heads=2, frame_mode="grouped", frame_tokens=4)
    projection = FrameProjection(config, DATA, extra=3, both_ways=True)
    frame, extra = torch.randn(2, 5, DATA.tokens, CHANNELS), torch.randn(2, 5, 3)
    made = projection(frame, extra)
    assert made.shape == (2, 5, 4, 16)
    by_hand = torch.cat([frame[..., 2:4, :].flatten(-2), extra], dim=-1) @ projection.inward.weight[1]
    torch.testing.assert_close(made[..., 1, :], by_hand + projection.inward.bias[16:32])
    frame[..., 2, :] += 1.0
    changed = (projection(frame, extra) - made).abs().amax(dim=(0, 1, 3))
    assert (changed > 0).tolist() == [False, True, False, False]
    torch.nn.init.normal_(projection.outward.weight)
    drawn = projection.out(made).unflatten(-1, (DATA.tokens, CHANNELS))
    made[..., 3, :] += 1.0
    again = projection.out(made).unflatten(-1, (DATA.tokens, CHANNELS))
    assert ((again - drawn).abs().amax(dim=(0, 1, 3)) > 0).tolist() == [False] * 6 + [True] * 2


def test_groups_must_come_out_even() -> None:
    config = ModelConfig(width=16, heads=2, frame_mode="grouped", frame_tokens=3)
    with pytest.raises(ValueError, match=r"model.frame_tokens=3: expected a divisor of the 8 tokens"):
        build_model(config, DATA)


def test_each_camera_is_normalised_by_its_own_statistics() -> None:
    model = build_model(ModelConfig(width=16, heads=2, frame_mode="token"), DATA)
    bright = torch.cat([torch.randn(64, PATCHES, CHANNELS), 5.0 + 0.5 * torch.randn(64, PATCHES, CHANNELS)], dim=1)
    stats = model.preprocess.token
    stats.add(stats.sums(bright, torch.ones(64, 2 * PATCHES, 1, dtype=torch.bool)))
    seen = stats.normalise(bright)
    for view in (seen[:, :PATCHES], seen[:, PATCHES:]):
        assert abs(float(view.mean())) < 1e-4
        assert float(view.std()) == pytest.approx(1.0, abs=0.02)
