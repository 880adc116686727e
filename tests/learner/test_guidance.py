"""Classifier-free guidance against its closed form, and against models that are told nothing."""

from dataclasses import replace

import pytest
import torch

from learner import ConditionConfig, FlowConfig, preset
from learner.guidance import guided
from learner.memory import state_bytes
from learner.testing import small_batch, small_model

KINDS = ["clwm", "flow_policy"]
DROPS = ConditionConfig(text_drop=0.3)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def told(kind: str, video: float = 1.0, action: float = 1.0):
    flow = FlowConfig(video_steps=1, action_steps=1, video_guidance=video, action_guidance=action)
    model = small_model(kind, flow=flow, condition=DROPS)
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def outcome(model, frame, batch):
    """Imagined frame and chunk after two observed frames."""
    memory = model.initial_memory(batch.size)
    for _ in range(2):
        memory = model.observe(memory, frame, batch.previous_action[:, 0], batch.previous_mask[:, 0])
    imagined = model.imagine(memory, frame, generator())
    fixed = None if imagined is None else frame.tokens + 0.1  # the action stage alone is compared
    return imagined, model.act(memory, frame, fixed, generator())


def test_guided_velocity_is_free_plus_scale_times_the_difference():
    rows = torch.randn(2, 5, 3)
    velocity = guided(lambda x, s: rows.flatten(0, 1) + x + s[:, None], 3.0)
    x, s = torch.randn(5, 3), torch.rand(5)
    torch.testing.assert_close(velocity(x, s), rows[1] + 3.0 * (rows[0] - rows[1]) + x + s[:, None])


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_of_a_whole_policy_is_linear_in_its_scale_from_told_nothing_to_told(kind):
    batch = small_batch()
    frame = batch.frame(0)
    results = {}
    for scale in (0.0, 1.0, 3.0):
        results[scale] = outcome(told(kind, scale, scale), frame, batch)
    model = told(kind)
    silent = replace(frame, text=model.preprocess.text.restore(torch.zeros_like(frame.text)))
    untold = outcome(model, silent, batch)
    for part in (0, 1):
        zero, one, three = (results[scale][part] for scale in (0.0, 1.0, 3.0))
        if zero is None:
            continue
        torch.testing.assert_close(zero, untold[part])
        assert not torch.allclose(zero, one)
        if part == 0:  # chunks are decoded by steps that are not linear
            torch.testing.assert_close(three, zero + 3.0 * (one - zero), atol=1e-4, rtol=1e-4)


def test_without_guidance_nothing_is_kept_twice_and_one_guided_stage_leaves_the_other_as_it_was():
    batch = small_batch()
    frame = batch.frame(0)
    plain, video = told("clwm"), told("clwm", video=2.0)
    sizes = [state_bytes(model.initial_memory(4).states) for model in (plain, video)]
    assert sizes[1] == 2 * sizes[0]
    a, b = outcome(plain, frame, batch), outcome(video, frame, batch)
    assert not torch.allclose(a[0], b[0])
    torch.testing.assert_close(a[1], b[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_dropped_instruction_reaches_no_loss(kind):
    batch = small_batch()
    for drop, reaches in ((1.0, False), (0.0, True)):
        model = small_model(kind, condition=ConditionConfig(text_drop=drop))
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        a, b = (model.loss(replace(batch, text=t), generator())["loss"] for t in (batch.text, batch.text + 1.0))
        assert (not torch.equal(a, b)) == reaches


def test_guidance_without_dropout_in_training_is_refused():
    with pytest.raises(ValueError, match=r"flow\.video_guidance=2\.0.*condition\.text_drop"):
        replace(preset("tiny"), flow=FlowConfig(video_guidance=2.0))
