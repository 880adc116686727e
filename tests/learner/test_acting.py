"""Acting with CLWM: what it reads, in stages and in part; and what it remembers of the frames before."""

from dataclasses import replace

import pytest
import torch

from learner import ConditionConfig, FlowConfig, MemoryConfig, PolicyRuntime, flow
from learner.memory import state_bytes
from learner.testing import small_batch, small_model, stirred

KINDS = ["clwm", "flow_policy"]
CHUNK = 6


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


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
