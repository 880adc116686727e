"""Speculative asynchronous inference against doing it all at once, and what the long-term memory gets to see."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from learner import FlowConfig, MemoryConfig, preset
from learner.runtime import PolicyRuntime, RuntimeConfig
from learner.testing import small_batch, small_model, stirred

B, FRAMES = 2, 3
FLOWS = [
    FlowConfig(video_steps=4, action_steps=6),
    FlowConfig(video_steps=2, action_steps=4, solver="midpoint", predict="velocity"),
    FlowConfig(video_steps=3, video_stop=0.6, action_steps=5, action_stop=0.8),
]


@pytest.fixture(params=range(len(FLOWS)))
def model(request):
    """Untrained, with every weight away from zero, so that all inputs have effects."""
    config = replace(preset("tiny"), flow=FLOWS[request.param], memory=MemoryConfig(dim=16, rule="online"))
    model = small_model(config=config)
    model.preprocess.observe(small_batch(size=32))
    return stirred(model, 0.05).eval()


class World:
    """Frames and postures that do not depend on actions."""

    def __init__(self) -> None:
        self.batch = small_batch(3, B)
        self.text, self.valid = self.batch.text.numpy(), self.batch.action_valid.numpy()
        self.mask = self.batch.token_mask.numpy()

    def tokens(self, t: int) -> np.ndarray:
        return self.batch.tokens[:, t].numpy()

    def proprio(self, t: int) -> np.ndarray:
        return self.batch.proprio[:, t].numpy()


def episode(model, config: RuntimeConfig, frames: int = FRAMES, perfect: bool = False):
    """Chunks and the memory in the end. With `perfect`, what comes is what was imagined and planned."""
    world, policy = World(), PolicyRuntime(model, config)
    policy.reset(world.text, world.valid)
    chunks = [policy.step(world.tokens(0), world.mask, world.proprio(0))]
    for t in range(1, frames):
        planned = chunks[-1][:, : model.data.tau]
        assert policy.imagined is not None
        tokens, proprio = (policy.imagined, planned[:, -1]) if perfect else (world.tokens(t), world.proprio(t))
        if config.mode == "sai":
            policy.speculate(planned, planned[:, -1])
        assert tokens is not None
        chunks.append(policy.step(tokens, world.mask, proprio, planned))
    return chunks, policy._memory


def same(a, b, **tolerance) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(torch.as_tensor(x), torch.as_tensor(y), **tolerance)


def apart(a, b) -> float:
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


def test_with_nothing_integrated_ahead_sai_is_sync_exactly(model):
    sync, memory = episode(model, RuntimeConfig())
    sai, memory_sai = episode(model, RuntimeConfig(mode="sai", s_video=0.0, s_action=0.0))
    same(sync, sai, rtol=0, atol=0)
    for layer, layer_sai in zip(memory.states, memory_sai.states, strict=True):
        same(layer, layer_sai, rtol=0, atol=0)


@pytest.mark.parametrize("model", [0, 1], indirect=True)  # where video_stop < 1, what is imagined is noisier than seen
@pytest.mark.parametrize(("video_left", "action_left"), [(1, 1), (0, None), (None, 1), (0, 0)])
def test_with_a_perfect_prediction_and_a_step_left_at_most_sai_is_sync(model, video_left, action_left):
    flow, times = model.config.flow, []
    for steps, left in ((flow.video_steps, video_left), (flow.action_steps, action_left)):
        times.append(0.0 if left is None else 1.0 - left / steps)
    sync, _ = episode(model, RuntimeConfig(), perfect=True)
    sai, _ = episode(model, RuntimeConfig(mode="sai", s_video=times[0], s_action=times[1]), perfect=True)
    same(sync, sai, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [0, 1], indirect=True)
def test_a_correction_takes_one_step_from_anywhere(model):
    """So that from halfway it is coarser than sync, and what it asks of the network is the same as from any other."""
    sync, _ = episode(model, RuntimeConfig(), perfect=True)
    for s in (0.1, 0.5, 0.6):  # on no grid, some of them
        config = RuntimeConfig(mode="sai", s_video=s, s_action=s)
        sai, _ = episode(model, config, perfect=True)
        same(sync[:1], sai[:1], rtol=1e-5, atol=1e-5)
        assert apart(sync[1:], sai[1:]) > 1e-4
        assert config.work(model.config.flow).blocking == 3 + (3 if model.config.flow.solver == "midpoint" else 1)


@pytest.mark.parametrize("model", [0, 1], indirect=True)
def test_speculation_forgets_when_the_coming_frame_will(model):
    """Where the memory starts anew at the next frame, what is begun ahead begins on an empty memory too."""
    for layer in model.memories.values():
        layer.alpha.data += 2.0  # so that what is remembered counts for much
    config, chunks = RuntimeConfig(context_frames=2), []
    for each in (config, replace(config, mode="sai", s_video=1.0, s_action=1.0), RuntimeConfig()):
        chunks.append(episode(model, each, frames=5, perfect=True)[0])
    same(chunks[0], chunks[1], rtol=1e-4, atol=1e-4)
    same(chunks[0][:2], chunks[2][:2], rtol=0, atol=0)
    assert apart(chunks[0][2:], chunks[2][2:]) > 1e-3


@pytest.mark.parametrize(("s_video", "s_action"), [(1.0, 0.0), (0.0, 0.7)])
def test_with_a_wrong_prediction_either_flow_differs(model, s_video, s_action):
    sync, _ = episode(model, RuntimeConfig())
    sai, _ = episode(model, RuntimeConfig(mode="sai", s_video=s_video, s_action=s_action))
    same(sync[:1], sai[:1], rtol=1e-5, atol=1e-5)  # before the first there is nothing to speculate on
    assert apart(sync[1:], sai[1:]) > 1e-3


def test_the_long_term_memory_never_sees_a_prediction(model):
    """Whatever is speculated, it is a function of what was seen and done: here both are given."""
    world, done = World(), np.random.default_rng(0).normal(size=(B, 4, 30)).astype(np.float32)
    memories = []
    for config in (RuntimeConfig(), RuntimeConfig(mode="sai", s_video=1.0, s_action=1.0)):
        policy = PolicyRuntime(model, config)
        policy.reset(world.text, world.valid)
        policy.step(world.tokens(0), world.mask, world.proprio(0))
        for t in (1, 2):
            if config.mode == "sai":
                kept = policy._memory
                before = [w.clone() for layer in kept.states for w in layer]
                policy.speculate(done + t, world.proprio(t))
                policy.speculate(done - t, world.proprio(0))  # twice, even
                assert policy._memory is kept
                same(before, [w for layer in kept.states for w in layer], rtol=0, atol=0)
            policy.step(world.tokens(t), world.mask, world.proprio(t), done)
        memories.append([w for layer in policy._memory.states for w in layer])
    same(*memories, rtol=0, atol=0)
    fresh = [w for layer in model.initial_memory(B).states for w in layer]
    assert not any(torch.equal(a, b) for a, b in zip(memories[0], fresh, strict=True))


def test_what_was_executed_last_is_remembered_whatever_was_predicted(model):
    world, tau = World(), model.data.tau
    seen = []
    model_observe = model.observe

    def spy(memory, frame, previous_action, previous_mask):
        seen.append((previous_action.clone(), previous_mask.clone()))
        return model_observe(memory, frame, previous_action, previous_mask)

    model.observe = spy
    policy = PolicyRuntime(model)
    policy.reset(world.text, world.valid)
    none = np.zeros((B, 0, 30), np.float32)
    rows = np.arange(B * 7 * 30, dtype=np.float32).reshape(B, 7, 30)
    for t, executed in enumerate((none, rows[:, :1], rows[:, 1:])):
        policy.step(world.tokens(t), world.mask, world.proprio(t), executed)
    (_, known), (one, _), (six, _) = seen
    assert not known.any()
    assert torch.equal(one, torch.from_numpy(rows[:, :1]).expand(-1, tau, -1))  # the first stands for those before it
    assert torch.equal(six, torch.from_numpy(rows[:, -tau:]))


def test_the_work_adds_up():
    for flow in FLOWS:
        works, each = [], 2 if flow.solver == "midpoint" else 1
        for s in np.linspace(0, 1, 21):
            work = RuntimeConfig(mode="sai", s_video=s, s_action=s).work(flow)
            assert 0 < work.blocking <= work.whole
            works.append(work)
        assert all(a.blocking >= b.blocking for a, b in pairwise(works))
        last = flow.action_stop < 1.0
        assert work.whole == 2 + each * (flow.video_steps + flow.action_steps + last)
        assert RuntimeConfig(mode="sai", s_video=0.0, s_action=0.0).work(flow).blocking == work.whole
    preset_work = RuntimeConfig(mode="sai").work(FlowConfig(video_steps=2, action_steps=4))
    assert preset_work.blocking_share == 0.5  # as the defaults' docstring says
    flow = FlowConfig(video_steps=4, action_steps=6)
    work = RuntimeConfig(mode="sai", s_video=1.0, s_action=0.5).work(flow)
    assert (work.whole, work.ahead, work.blocking) == (12, 1 + 4 + 1 + 3, 1 + 1 + 1)
    part = FlowConfig(video_steps=4, action_steps=6, video_stop=0.5)
    assert RuntimeConfig(mode="sai", s_video=0.5, s_action=0.5).work(part).ahead == work.ahead + 1


AHEAD = [(0.5, 0.5), (0.5, 0.25), (0.3, 0.9), (0.0, 0.4), (0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]


@pytest.mark.parametrize(("s_video", "s_action"), AHEAD)
def test_network_passes_are_as_many_as_is_said(model, s_video, s_action, monkeypatch):
    """In one go, ahead, and what then blocks: nobody looks at a frame twice."""
    world, passes = World(), []

    def counting(through):
        def counted(*words, **more):
            passes.append(1)
            return through(*words, **more)

        return counted

    for name in ("observe", "extend"):
        monkeypatch.setattr(type(model), name, counting(getattr(type(model), name)))

    def taken(call, *words):
        passes.clear()
        result = call(*words)
        return len(passes), result

    policy = PolicyRuntime(model, RuntimeConfig(mode="sai", s_video=s_video, s_action=s_action))
    policy.reset(world.text, world.valid)
    whole, chunk = taken(policy.step, world.tokens(0), world.mask, world.proprio(0))
    ahead, _ = taken(policy.speculate, chunk[:, : model.data.tau], world.proprio(1))
    blocking, _ = taken(policy.step, world.tokens(1), world.mask, world.proprio(1))
    assert (whole, ahead, blocking) == (policy.work.whole, policy.work.ahead, policy.work.blocking)


def test_a_substitute_is_shown_instead_and_sees_the_chunk_that_would_have_been(model):
    world, proposed = World(), []

    def zeros(imagined, propose):
        proposed.append(propose())
        return torch.zeros_like(imagined)

    chunks = []
    for substitute in (None, lambda imagined, propose: imagined, zeros):
        policy = PolicyRuntime(model, substitute=substitute)
        policy.reset(world.text, world.valid)
        chunks.append(policy.step(world.tokens(0), world.mask, world.proprio(0)))
    same(chunks[:1], chunks[1:2], rtol=0, atol=0)
    same(chunks[:1], [proposed[0].numpy()], rtol=0, atol=0)
    assert apart(chunks[:1], chunks[2:]) > 1e-4


def test_impossible_runtimes_are_refused(model):
    with pytest.raises(ValueError, match=r"kind=flow_policy.*imagines no next frame"):
        PolicyRuntime(small_model("flow_policy"), RuntimeConfig(mode="sai"))
    with pytest.raises(ValueError, match=r"runtime\.mode=later"):
        RuntimeConfig(mode="later")
    with pytest.raises(ValueError, match=r"runtime\.s_video=1\.5"):
        RuntimeConfig(s_video=1.5)
    world, policy = World(), PolicyRuntime(model, RuntimeConfig(mode="sai"))
    policy.reset(world.text, world.valid)
    with pytest.raises(ValueError, match="no step before it"):
        policy.speculate(np.zeros((B, 1, 30), np.float32), world.proprio(0))
    with pytest.raises(ValueError, match=r"frame.tokens: shape"):
        policy.step(world.tokens(0)[:, :1], world.mask[:, :1], world.proprio(0))
