from dataclasses import replace

import numpy as np
import pytest
import torch

from embodichain.contracts import WindowSpec
from learner import ConditionConfig, DataSpec, FlowConfig, MemoryConfig, heldout_error, preset
from learner.batch import prepare_batch
from learner.blocks import FrameLayout
from learner.build import build_model
from learner.testing import fake_batch, fake_text, small_batch, small_model, stirred

KINDS = ["clwm", "flow_policy"]
CHUNK = 6


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def trunk_inputs(model, batch):
    """Token sequences of a batch as one leaf tensor, so that gradients show who sees whom."""
    b, k = batch.size, batch.frames
    g = torch.Generator().manual_seed(2)
    x = torch.randn(b, k, model.layout.length, model.config.width, generator=g, requires_grad=True)
    past = torch.zeros(b, k, model.config.width)
    return x, past, batch.frame_mask[:, :k], torch.ones(b, k, dtype=torch.bool)


def reach(model, batch, out_tokens: slice) -> torch.Tensor:
    """[K, S]: gradient size at each input token, of the given outputs of frame 1."""
    x, past, exists, shown = trunk_inputs(model, batch)
    out = model.trunk(x, past, exists, shown, generator()).unflatten(0, (batch.size, batch.frames))
    (grad,) = torch.autograd.grad(out[:, 1, out_tokens].square().sum(), x)
    return grad.abs().sum((0, 3))


def test_video_sees_no_action_and_no_condition_and_an_action_sees_no_video_and_no_other_draw():
    model = small_model(action_draws=2)
    batch, layout = small_batch(), model.layout
    video = reach(model, batch, slice(0, 1))
    assert (video[1, layout.context] > 0).all()
    assert (video[1, layout.video] > 0).all()
    assert (video[1, layout.condition] == 0).all()
    assert (video[1, layout.actions] == 0).all()
    first = reach(model, batch, slice(1, 1 + layout.action))
    own = slice(layout.actions.start, layout.actions.start + layout.action)
    assert (first[1, layout.condition] > 0).all()
    assert (first[1, own] > 0).all()
    assert (first[1, layout.video] == 0).all()
    assert (first[1, own.stop :] == 0).all()


def test_frames_see_the_past_through_the_memory_only_and_never_the_future():
    model = small_model()
    batch, layout = small_batch(), model.layout
    sizes = reach(model, batch, slice(0, None))
    assert (sizes[2] == 0).all()
    assert (sizes[0, layout.context] > 0).all()
    assert (sizes[0, layout.context.stop :] == 0).all()
    alone = small_model(memory=MemoryConfig(kind="none"))
    assert (reach(alone, batch, slice(0, None))[0] == 0).all()


def sees(layout: FrameLayout, row: int, column: int) -> bool:
    """The rule of the mask in words: who sees whom within a frame."""
    stage = {}
    for name in ("context", "condition", "video", "actions"):
        for i in range(layout.length)[getattr(layout, name)]:
            stage[i] = name if name != "actions" else f"draw {(i - layout.actions.start) // layout.action}"
    if stage[column] == "context" or stage[row] == stage[column]:
        return True
    return stage[row].startswith("draw") and stage[column] == "condition"


def test_mask_within_a_frame_equals_its_rule_in_words():
    layout = FrameLayout(frame=3, action=2, draws=3)
    expected = [[sees(layout, i, j) for j in range(layout.length)] for i in range(layout.length)]
    assert torch.equal(layout.visible(), torch.tensor(expected))


@pytest.mark.parametrize("kind", ["ttt", "kv", "window"])
def test_every_kind_of_memory_is_causal_over_frames(kind):
    """Frame t's outputs depend on frames 0 to t: a frame that is changed changes nothing before it."""
    model = small_model(memory=MemoryConfig(kind=kind, dim=16, window=2, layers=(0, 1)))
    batch = small_batch()
    x, past, exists, shown = trunk_inputs(model, batch)
    for t in range(batch.frames):
        other = x.detach().clone()
        other[:, t] += torch.randn_like(other[:, t])
        a, b = (model.trunk(v, past, exists, shown, generator()).unflatten(0, exists.shape) for v in (x, other))
        same = [torch.allclose(a[:, s], b[:, s]) for s in range(batch.frames)]
        assert same[:t] == [True] * t
        assert not any(same[t : t + 2])


def test_layout_covers_the_sequence_once():
    layout = FrameLayout(frame=3, action=2, draws=4)
    parts = (layout.context, layout.condition, layout.video, layout.actions)
    covered = [i for part in parts for i in range(layout.length)[part]]
    assert covered == list(range(layout.length))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fill", [1e4, float("nan")])
def test_masked_entries_reach_no_loss_and_no_gradient(kind, fill):
    model, batch = small_model(kind), small_batch()
    frame_mask, action_exists = batch.frame_mask.clone(), batch.action_exists.clone()
    frame_mask[0, -1] = False
    action_exists[0, -1, 2:] = False
    token_mask = batch.token_mask.clone()
    token_mask[1, -1] = False
    previous_mask = batch.previous_mask.clone()
    previous_mask[2, 0] = False
    masks = {"frame_mask": frame_mask, "action_exists": action_exists, "token_mask": token_mask}
    clean = replace(batch, **masks, previous_mask=previous_mask, action_mask=batch.action_mask & action_exists)
    model.preprocess.observe(clean)
    tokens, action, previous = clean.tokens.clone(), clean.action.clone(), clean.previous_action.clone()
    proprio = clean.proprio.clone()
    tokens[0, -1], tokens[1, :, -1], proprio[0, -1] = fill, fill, fill
    action[0, -1, 2:], action[..., :7], previous[2, 0] = fill, fill, fill
    dirty = replace(clean, tokens=tokens, action=action, previous_action=previous, proprio=proprio)
    losses = []
    for version in (clean, dirty):
        model.zero_grad()
        loss = model.loss(version, generator())["loss"]
        loss.backward()
        losses.append((loss.detach(), [p.grad.clone() for p in model.parameters()]))
    torch.testing.assert_close(losses[0][0], losses[1][0])
    for a, b in zip(losses[0][1], losses[1][1], strict=True):
        torch.testing.assert_close(a, b)


def test_actions_outside_the_mask_change_no_loss_target():
    model, batch = small_model("flow_policy"), small_batch()
    model.preprocess.observe(batch)
    none = replace(batch, action_mask=torch.zeros_like(batch.action_mask))
    assert model.loss(none, generator())["loss"].item() == 0.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("predict", ["clean", "velocity"])
def test_every_parameter_gets_a_gradient(kind, predict):
    model = small_model(kind, flow=FlowConfig(predict=predict))
    batch = small_batch()
    model.preprocess.observe(batch)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    model.loss(batch, generator())["loss"].backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missing


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", ["tokens", "proprio", "action", "previous_action", "text", "frame_mask"])
def test_a_wrong_shape_is_refused_by_name(kind, field):
    model, batch = small_model(kind), small_batch()
    with pytest.raises(ValueError, match=f"batch.{field}"):
        model.loss(replace(batch, **{field: getattr(batch, field)[..., :-1]}), generator())
    frame = replace(batch.frame(0), tokens=batch.tokens[:, 0, :-1])
    with pytest.raises(ValueError, match=r"frame\.tokens"):
        model.act(model.initial_memory(batch.size), frame, None, generator())


@pytest.mark.parametrize(("kind", "reaches"), [("ttt", True), ("kv", True), ("window", False), ("none", False)])
def test_burn_in_frames_carry_no_loss_and_reach_later_ones_through_the_memory_alone(kind, reaches):
    spec = WindowSpec(frames=1, burn_in=3, tau=4, chunk=6)
    raw = fake_batch(np.random.default_rng(0), 8, spec=spec)
    batch = prepare_batch(raw, fake_text(raw.instruction))
    assert not batch.action_mask[:, :3].any()
    condition = ConditionConfig(drop=1.0)
    model = small_model(memory=MemoryConfig(kind=kind, dim=16, window=2, decay=1.0), condition=condition)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    action, tokens = batch.action.clone(), batch.tokens.clone()
    action[:, :3] += 1.0
    tokens[:, 1] += 1.0
    versions = (batch, replace(batch, action=action), replace(batch, tokens=tokens))
    losses = [model.loss(version, generator()) for version in versions]
    for part in ("video", "action"):
        assert torch.equal(losses[0][part], losses[1][part])
        assert torch.allclose(losses[0][part], losses[2][part], rtol=1e-7) != reaches, part


def test_heldout_error_of_a_new_model_is_that_of_the_input_blind_one():
    model, batch = small_model(), small_batch()
    model.preprocess.observe(batch)
    error = heldout_error(model, batch, generator())
    assert error.action == pytest.approx(error.input_blind, rel=0.05)
    assert error.frame == pytest.approx(error.frame_copy, rel=0.05)


GUIDED = {"flow": FlowConfig(action_guidance=2.0), "condition": ConditionConfig(text_drop=0.1)}


@pytest.mark.parametrize("kind", ["ttt", "kv", "window"])
@pytest.mark.parametrize("settings", [{}, GUIDED])
def test_heldout_error_writes_no_frame_into_the_memory_that_does_not_exist(kind, settings):
    """Burn-in at the beginning of an episode: what lies in frames before it is padding, whatever it holds."""
    model, batch = small_model(memory=MemoryConfig(kind=kind, dim=16), **settings), small_batch()
    model.preprocess.observe(batch)
    stirred(model, seed=1)
    batch.frame_mask[:3, 0] = False
    batch.previous_mask[:3, :2] = False
    tokens, proprio = batch.tokens.clone(), batch.proprio.clone()
    tokens[:3, 0], proprio[:3, 0] = 3.0, -2.0
    padded = replace(batch, tokens=tokens, proprio=proprio)
    assert heldout_error(model, batch, generator()) == heldout_error(model, padded, generator())


PRESETS = {"tiny": (0.1, 0.5), "laptop": (1.0, 6.0), "base": (25.0, 40.0), "large": (300.0, 400.0)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("data", [DataSpec(tokens=6, channels=53), DataSpec(tokens=128, channels=384)])
def test_presets_have_the_sizes_they_are_named_for(kind, name, data):
    """Millions of parameters, counted without memory for them; of pose tokens, and of two cameras' image tokens."""
    images = data.tokens > 100
    if images and kind == "flow_policy":
        pytest.skip("a plain policy of image tokens is mostly its first layer")
    config = replace(preset(name, kind), frame_mode="token" if images else "packed")
    with torch.device("meta"):
        model = build_model(config, data)
    low, high = PRESETS[name]
    assert low < sum(p.numel() for p in model.parameters()) / 1e6 < high


def test_a_launcher_gives_the_memory_the_context_of_its_windows_unless_told_otherwise():
    assert preset("tiny").memory.context_frames is None
    assert preset("tiny").for_windows(5).memory.context_frames == 5
    told = replace(preset("tiny"), memory=MemoryConfig(context_frames=0))
    assert told.for_windows(5) == told
    with pytest.raises(ValueError, match=r"memory\.context_frames=-1"):
        MemoryConfig(context_frames=-1)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="preset"):
        preset("huge")


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: MemoryConfig(rule="later"), "memory.rule"),
        (lambda: MemoryConfig(kind="lstm"), "memory.kind"),
        (lambda: MemoryConfig(kind="kv", dim=6), "memory.dim"),
        (lambda: ConditionConfig(drop=1.5), "condition.drop"),
        (lambda: FlowConfig(predict="noise"), "flow.predict"),
        (lambda: FlowConfig(action_stop=0.0), "flow.action_stop"),
        (lambda: replace(preset("tiny"), flow=FlowConfig(video_stop=0.3)), "flow.video_stop"),
        (lambda: replace(preset("tiny"), heads=3), "model.heads"),
        (lambda: replace(preset("tiny"), memory=MemoryConfig(layers=(7,))), "memory.layers"),
    ],
)
def test_impossible_settings_name_the_key(make, word):
    with pytest.raises(ValueError, match=word):
        make()
