from dataclasses import replace

import numpy as np
import pytest
import torch

from embodichain.contracts import WindowSpec
from learner import ConditionConfig, DataSpec, FlowConfig, MemoryConfig, PolicyRuntime, flow, heldout_error, preset
from learner.batch import prepare_batch
from learner.blocks import FrameLayout
from learner.build import build_model
from learner.memory import state_bytes
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


@pytest.mark.parametrize("kind", KINDS)
def test_acting_gives_chunks_in_the_unified_layout_and_changes_no_memory(kind):
    model, batch = small_model(kind), small_batch()
    model.preprocess.observe(batch)
    frame = batch.frame(0)
    memory = model.observe(
        model.initial_memory(batch.size), frame, batch.previous_action[:, 0], batch.previous_mask[:, 0]
    )
    before = [w.clone() for state in memory.states for w in state] if memory else []
    imagined = model.imagine(memory, frame, generator())
    chunk = model.act(memory, frame, imagined, generator())
    assert chunk.shape == (batch.size, CHUNK, 30)
    assert (chunk[~batch.action_valid[:, None].expand_as(chunk)] == 0).all()
    assert imagined is None or imagined.shape == frame.tokens.shape
    after = [w for state in memory.states for w in state] if memory else []
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", ["ttt", "kv", "window", "none"])
def test_acting_reads_the_same_network_as_training(kind):
    """The cached, staged path of inference equals the one-pass training path, memory included.

    Some windows lie at the beginning of their episodes: their first frame does not exist, as with burn-in.
    """
    condition = ConditionConfig(drop=0.0, noise_prob=0.0, history_noise_prob=0.0)
    memory = MemoryConfig(kind=kind, dim=16, window=2, layers=(0, 1))
    model, batch = small_model(condition=condition, memory=memory).double(), small_batch()
    batch = replace(batch, **{n: getattr(batch, n).double() for n in ("tokens", "proprio", "action", "text")})
    batch = replace(batch, previous_action=batch.previous_action.double())
    batch.frame_mask[:3, 0] = False
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.preprocess.observe(batch)
    window = model._window(batch)
    x_s = torch.randn(batch.size, batch.frames, model.chunk_dim).double()
    y_s = torch.randn(batch.size, batch.frames, window.tokens[0, 0].numel()).double()
    s = torch.full(x_s.shape[:2], 0.3).double()
    sequence = (
        model.context_tokens(window.tokens[:, :-1], window.body),
        model.condition_tokens(window.tokens[:, 1:], torch.ones_like(s), window.tokens[:, :-1]),
        model.video_tokens(y_s, s),
        model.action_tokens(x_s, s),
    )
    shown = torch.ones(x_s.shape[:2], dtype=torch.bool)
    past = model.past_in(window.past)
    whole = model.trunk(torch.cat(sequence, dim=2), past, batch.frame_mask[:, :-1], shown, generator())
    whole = whole.unflatten(0, x_s.shape[:2])
    memory = model.initial_memory(batch.size)
    for t in range(batch.frames):
        frame = batch.frame(t)
        seen = batch.frame_mask[:, t]
        memory = model.observe(memory, frame, batch.previous_action[:, t], batch.previous_mask[:, t], exists=seen)
        caches, _, _ = model._see(memory, frame, 1.0)
        video, _ = model.extend(sequence[2][:, t], caches, None)
        _, caches = model.extend(sequence[1][:, t], caches, memory.states, fork=True)
        action, _ = model.extend(sequence[3][:, t], caches, None)
        torch.testing.assert_close(whole[seen, t, :1], video[seen])
        torch.testing.assert_close(whole[seen, t, 1:], action[seen])


@pytest.mark.parametrize("guidance", [(1.0, 1.0), (1.0, 2.0), (2.0, 1.0)])
def test_what_is_seen_in_observing_is_what_another_look_sees(guidance):
    flow = FlowConfig(video_guidance=guidance[0], action_guidance=guidance[1])
    model, batch = small_model(flow=flow, condition=ConditionConfig(text_drop=0.2)), small_batch()
    model.preprocess.observe(batch)
    stirred(model, 0.05)
    memory = model.initial_memory(batch.size)
    for t in range(2):
        frame = batch.frame(t)
        memory = model.observe(memory, frame, batch.previous_action[:, t], batch.previous_mask[:, t])
    outcomes = []
    for seen in (frame, replace(frame)):
        imagined = model.imagine(memory, seen, generator())
        outcomes.append((imagined, model.act(memory, seen, imagined, generator())))
    torch.testing.assert_close(*outcomes)
    other = model.act(memory, batch.frame(0), outcomes[0][0], generator())  # another frame is looked at
    assert not torch.allclose(other, outcomes[0][1], atol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"condition": ConditionConfig(imagined=0.5, imagined_after=0.0)},
        {"condition": ConditionConfig(use=False, frame_noise_prob=0.5)},
        {"frame_mode": "token", "action_draws": 3},
        {"frame_mode": "grouped", "frame_tokens": 2},
        {"frame_mode": "grouped", "frame_tokens": 2, "patch_width": 4, "components": 3},
        {"memory": MemoryConfig(dim=8, rule="online", layers=(0, 1))},
        {"memory": MemoryConfig(kind="none")},
        {"memory": MemoryConfig(kind="kv", dim=16)},
        {"memory": MemoryConfig(kind="window", dim=16, window=1)},
        {"flow": FlowConfig(predict="velocity", solver="midpoint", noise_bias=1.0)},
        {"flow": FlowConfig(video_stop=0.6, action_stop=0.8, solver="midpoint")},
    ],
)
def test_variants_train_and_act(changes):
    model, batch = small_model(**changes), small_batch()
    model.preprocess.observe(batch)
    losses = model.loss(batch, generator(), progress=0.5)
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    policy = PolicyRuntime(model)
    policy.reset(batch.text.numpy(), batch.action_valid[0].numpy())
    for t in range(2):
        chunk = policy.step(batch.tokens[:, t].numpy(), batch.token_mask[0].numpy(), batch.proprio[:, t].numpy())
        assert chunk.shape == (batch.size, CHUNK, 30)
        assert (policy.imagined is not None) == model.config.condition.use


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_a_partial_denoising_taken_up_again_equals_one_in_one_go(solver):
    model, batch = small_model(flow=FlowConfig(action_steps=4, video_steps=4, solver=solver)), small_batch()
    frame, memory = batch.frame(0), model.initial_memory(batch.size)
    chunk, latents = model.chunk_noise(frame, generator()), model.frame_noise(frame, generator())
    whole = model.denoise_actions(memory, frame, None, chunk)
    half = model.denoise_actions(memory, frame, None, chunk, stop=0.5)
    assert half.s == 0.5
    torch.testing.assert_close(model.denoise_actions(memory, frame, None, half).x, whole.x)
    half = model.denoise_frame(memory, frame, latents, stop=0.25)
    whole = model.denoise_frame(memory, frame, latents)
    torch.testing.assert_close(model.denoise_frame(memory, frame, half).x, whole.x)
    torch.testing.assert_close(model.frame_of(whole, frame), model.imagine(memory, frame, generator()))
    with pytest.raises(ValueError, match=r"s=0\.5"):
        model.chunk_of(flow.FlowState(x=chunk.x, s=0.5), frame)


def test_a_partly_denoised_frame_reaches_the_action_stage_as_training_showed_it():
    """At s = video_stop it is (1 - s) noise + s (estimate), and its level is what the condition reports."""
    model, batch = small_model(flow=FlowConfig(video_steps=1, video_stop=0.6)), small_batch()
    model.preprocess.observe(batch)
    frame, memory = batch.frame(0), model.initial_memory(batch.size)
    noise = model.frame_noise(frame, generator())
    part, whole = (model.denoise_frame(memory, frame, noise, stop=s) for s in (0.6, 1.0))
    assert part.s == model.config.shown_level == 0.6
    estimate = model.denoise_frame(memory, frame, noise, stop=1e-4)  # its first step shows the velocity
    estimate = noise.x + (estimate.x - noise.x) / 1e-4
    torch.testing.assert_close(part.x, 0.4 * noise.x + 0.6 * estimate, atol=1e-3, rtol=1e-3)
    shown = model.imagine(memory, frame, generator())
    torch.testing.assert_close(shown, model.frame_of(part, frame))
    assert not torch.allclose(part.x, whole.x)
    chunks = [model.act(memory, frame, shown, generator(), level=level) for level in (None, 0.6, 1.0)]
    assert torch.equal(chunks[0], chunks[1])


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["ttt", "kv", "window"])
def test_a_memory_holds_no_more_frames_than_its_context_has(kind, guidance):
    """At context_frames = 2 the third frame is remembered as if it were the first, the fourth as the second."""
    model = small_model(
        memory=MemoryConfig(kind=kind, dim=16, context_frames=2),
        flow=FlowConfig(action_guidance=guidance),
        condition=ConditionConfig(text_drop=0.1),
    )
    batch = small_batch()
    model.preprocess.observe(batch)
    stirred(model, 0.05)

    def remembered(frames, context_frames=None):
        memory = model.initial_memory(batch.size, context_frames)
        for t in frames:
            past = batch.previous_action[:, t], batch.previous_mask[:, t]
            memory = model.observe(memory, batch.frame(t), *past)
        chunk = model.act(memory, batch.frame(frames[-1]), None, generator())
        return chunk, memory

    for frames, equal in (((0, 1), (0, 1)), ((0, 1, 2), (2,)), ((0, 1, 2, 1), (2, 1)), ((0, 1, 2, 1, 0), (0,))):
        chunk, memory = remembered(frames)
        torch.testing.assert_close(chunk, remembered(equal, 0)[0], rtol=0, atol=0)
        assert memory.frames == len(equal)
        assert state_bytes(memory.states) == state_bytes(remembered(equal, 0)[1].states)
    endless, memory = remembered((0, 1, 2), 0)
    assert memory.frames == 3
    assert not torch.allclose(endless, remembered((0, 1, 2))[0])


def test_a_launcher_gives_the_memory_the_context_of_its_windows_unless_told_otherwise():
    assert preset("tiny").memory.context_frames is None
    assert preset("tiny").for_windows(5).memory.context_frames == 5
    told = replace(preset("tiny"), memory=MemoryConfig(context_frames=0))
    assert told.for_windows(5) == told
    with pytest.raises(ValueError, match=r"memory\.context_frames=-1"):
        MemoryConfig(context_frames=-1)


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
