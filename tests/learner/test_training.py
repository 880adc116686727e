import json
import uuid
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embodichain.archive import Location
from learner import (
    ConditionConfig,
    MemoryConfig,
    PolicyRuntime,
    TrainConfig,
    TrainState,
    from_pretrained,
    heldout_error,
    learning_rate,
    list_checkpoints,
    load_model,
    load_state,
    read_info,
    save_checkpoint,
)
from learner.testing import small_batch, small_model

KINDS = ["clwm", "flow_policy"]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def train(state: TrainState, first: int, last: int, total: int = 8, size: int = 8) -> list[dict[str, float]]:
    return [state.step(small_batch(i, size), progress=i / total) for i in range(first, last)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_with_noise_from_the_cpu_a_gpu_follows_the_cpus_loss_curve(kind):
    config = TrainConfig(noise="cpu")
    curves = []
    for device in ("cpu", "cuda"):
        state = TrainState(small_model(kind=kind).to(device), config)
        curves.append([state.step(small_batch(i, 8).to(device), progress=i / 20)["loss"] for i in range(20)])
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_resume_is_bit_identical_to_not_stopping(kind, tmp_path):
    straight = TrainState(small_model(kind), TrainConfig())
    curve = train(straight, 0, 8)
    stopped = TrainState(small_model(kind), TrainConfig())
    train(stopped, 0, 4)
    save_checkpoint(tmp_path / "c", stopped, {"run": "r"})
    resumed, info = load_state(tmp_path / "c")
    assert (info.steps, info.extra) == (4, {"run": "r"})
    assert train(resumed, 4, 8) == curve[4:]
    for a, b in ((straight.model, resumed.model), (straight.ema, resumed.ema)):
        for name, tensor in a.state_dict().items():
            assert torch.equal(tensor, b.state_dict()[name]), name


def test_the_average_is_what_is_loaded_to_act(tmp_path):
    state = TrainState(small_model(), TrainConfig())
    train(state, 0, 2)
    model = load_model(save_checkpoint(tmp_path / "c", state), encoder_id="fake")
    batch = small_batch()
    chunks = []
    for m in (state.ema, model):
        policy = PolicyRuntime(m)
        policy.reset(batch.text.numpy(), batch.action_valid.numpy())
        chunks.append(policy.step(batch.tokens[:, 0].numpy(), batch.token_mask.numpy(), batch.proprio[:, 0].numpy()))
    np.testing.assert_array_equal(chunks[0], chunks[1])


def test_saving_replaces_and_leaves_nothing_else_behind(tmp_path):
    state = TrainState(small_model(), TrainConfig())
    save_checkpoint(tmp_path / "c", state)
    train(state, 0, 1)
    save_checkpoint(tmp_path / "c", state)
    assert read_info(tmp_path / "c").steps == 1
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_damaged_and_foreign_checkpoints_are_refused_in_one_line(tmp_path):
    state = TrainState(small_model(), TrainConfig())
    path = save_checkpoint(tmp_path / "c", state)
    with pytest.raises(ValueError, match=r"no checkpoint\.json"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="encoder 'fake', asked to read 'dino'"):
        load_model(path, encoder_id="dino")
    with pytest.raises(ValueError, match=r"data\.chunk=6, this run has 7"):
        load_state(path, data=replace(state.model.data, chunk=7))
    info = json.loads((path / "checkpoint.json").read_text())
    (path / "checkpoint.json").write_text(json.dumps({**info, "model": {**info["model"], "wdth": 3}}))
    with pytest.raises(ValueError, match=r"model\.wdth: unknown key"):
        load_model(path)
    (path / "checkpoint.json").write_text(json.dumps({**info, "model": {**info["model"], "width": 32}}))
    with pytest.raises(ValueError, match="shape"):
        load_model(path)
    for changes, said in (
        ({"train": []}, r"c: train=\[\]: expected a mapping"),
        ({"model": {"width": "a"}}, "c: model: "),
    ):
        (path / "checkpoint.json").write_text(json.dumps({**info, **changes}))
        with pytest.raises(ValueError, match=said):
            load_model(path)
    (path / "checkpoint.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        load_model(path)
    for number, said in ((99, "format 99, expected 2$"), (1, "format 1, expected 2; an older version made it")):
        (path / "checkpoint.json").write_text(json.dumps({**info, "format": number}))
        with pytest.raises(ValueError, match=said):
            load_model(path)
    (path / "checkpoint.json").write_text(json.dumps(info))
    weights = (path / "ema.safetensors").read_bytes()
    (path / "ema.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match=r"ema\.safetensors is damaged"):
        load_model(path)
    save_checkpoint(path, state)
    for part in ("model", "optimiser"):
        whole = (path / f"{part}.safetensors").read_bytes()
        (path / f"{part}.safetensors").write_bytes(whole[:-40])
        with pytest.raises(ValueError, match=rf"{part}\.safetensors is damaged"):
            load_state(path)
        (path / f"{part}.safetensors").write_bytes(whole)


@pytest.mark.parametrize("fill", [float("nan"), float("inf")])
@pytest.mark.parametrize("at", [0, 2])
def test_a_batch_that_is_not_finite_changes_nothing_but_the_count(at, fill):
    state = TrainState(small_model(), TrainConfig())
    train(state, 0, at)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    batch = small_batch(at)
    batch.tokens[0, 0, 0, 0] = fill
    scalars = state.step(batch, 0.3)
    assert (scalars["skipped"], state.steps, state.updates) == (1.0, at + 1, at)
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    after = train(state, at + 1, at + 2)[0]
    assert after["skipped"] == 1.0
    assert np.isfinite(after["loss"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimiser_gets_gradients_of_at_most_the_norm_of_clip(kind):
    """AdamW's first step hides the size of a gradient; its average of them, (1 - beta1) g by then, does not."""
    given, norms = [], []
    for clip in (1e-2, 1e6):
        config = TrainConfig(clip=clip)
        state = TrainState(small_model(kind), config)
        norms.append(train(state, 0, 1)[0]["grad_norm"])
        averages = torch.cat([each["exp_avg"].flatten() for each in state.optimiser.state.values()])
        given.append(float(averages.norm()) / (1.0 - config.beta1))
    assert norms[0] == norms[1] > 0.1
    assert given == pytest.approx([1e-2, norms[1]], rel=1e-3)


def test_learning_rate_warms_up_and_falls_to_its_end():
    config = TrainConfig(lr=1.0, warmup=0.1, lr_end=0.1)
    rates = [learning_rate(config, p) for p in np.linspace(0, 1, 101)]
    assert max(rates) == pytest.approx(1.0)
    assert int(np.argmax(rates)) == 10
    assert rates[-1] == pytest.approx(0.1)
    assert learning_rate(config, 2.0) == rates[-1]


def test_statistics_follow_the_masked_stream_and_freeze():
    model = small_model(normaliser_batches=2)
    batches = [small_batch(i) for i in range(3)]
    assert [model.preprocess.observe(b) for b in batches] == [True, True, False]
    tokens = torch.cat([b.tokens for b in batches[:2]]).flatten(0, 1)
    torch.testing.assert_close(model.preprocess.token.shift, tokens.mean(0))
    torch.testing.assert_close(model.preprocess.token.scale, tokens.std(0, correction=0))
    assert (model.preprocess.text.scale == 1.0).all()  # one instruction: constant, never blown up


def test_codec_round_trip_is_relative_in_joints_only():
    codec, batch = small_model().preprocess.codec, small_batch()
    now = batch.proprio[:, :-1]
    code = codec.encode(batch.action, now)
    assert code.shape[-1] == 16
    torch.testing.assert_close(codec.decode(code, now), batch.action)
    moved = codec.encode(batch.action, now + 1.0) - code
    torch.testing.assert_close(moved, -codec.relative.float().expand_as(moved))
    with pytest.raises(ValueError, match="expected 30"):
        codec.encode(batch.action[..., :29], now)
    with pytest.raises(ValueError, match="expected 16"):
        codec.decode(code[..., :3], now)


@pytest.mark.parametrize("rule", ["initial", "online"])
def test_bf16_steps_stay_close_to_fp32(rule):
    results = []
    for bf16 in (False, True):
        state = TrainState(small_model(memory=MemoryConfig(dim=16, rule=rule)), TrainConfig(bf16=bf16))
        results.append([scalars["loss"] for scalars in train(state, 0, 3)])
        assert state.updates == 3
    assert results[0] == pytest.approx(results[1], rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_learns_the_reaching_world(kind):
    state = TrainState(small_model(kind), TrainConfig(lr=3e-3, ema=0.98))
    curve = train(state, 0, 150, total=150, size=32)
    first = np.mean([c["action"] for c in curve[:5]])
    assert np.mean([c["action"] for c in curve[-10:]]) < 0.5 * first
    error = heldout_error(state.ema, small_batch(10_000, 64), generator())
    assert error.action < 0.5 * error.input_blind
    if kind == "clwm":
        assert error.frame < 0.7 * error.frame_copy


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_add_up_to_the_step_of_the_whole_batch(kind):
    """With the noise of two micro-batches on either side: once summed up by hand, once by the step."""
    config = ConditionConfig(noise_prob=0.0, history_noise_prob=0.0, drop=0.0)
    whole, parts = (TrainState(small_model(kind, condition=config), TrainConfig(accumulate=n)) for n in (1, 2))
    batch = small_batch(0)
    batch.action_mask[:3] = False  # halves with different numbers of entries
    batch.frame_mask[0, -1] = False
    for state in (whole, parts):
        state.model.preprocess.observe(batch)
    entries = parts.model.entries(batch)
    expected = sum(
        float(parts.model.loss(part, torch.Generator().manual_seed(i), 0.5, entries)["loss"].detach())
        for i, part in enumerate(batch.split(2))
    )
    losses = parts._gradients(batch, 0.5)
    assert losses["loss"] == pytest.approx(expected, rel=1e-6)
    single = whole.model.loss(batch, torch.Generator().manual_seed(0), 0.5)["loss"]
    alone = whole.model.loss(batch, torch.Generator().manual_seed(0), 0.5, entries)["loss"]
    assert float(single.detach()) == pytest.approx(float(alone.detach()), rel=1e-6)


@pytest.mark.parametrize(("size", "parts"), [(5, [3, 2]), (1, [1])])
def test_a_short_batch_is_divided_as_far_as_it_goes(size, parts):
    """The last one of an archive: every entry weighs the same, whichever part it is in."""
    config = ConditionConfig(noise_prob=0.0, history_noise_prob=0.0, drop=0.0)
    state, batch = TrainState(small_model(condition=config), TrainConfig(accumulate=2)), small_batch(0, size)
    state.model.preprocess.observe(batch)
    divided = batch.split(2)
    assert [part.size for part in divided] == parts
    expected = sum(
        float(state.model.loss(part, torch.Generator().manual_seed(i), 0.5, state.model.entries(batch))["loss"])
        for i, part in enumerate(divided)
    )
    assert state._gradients(batch, 0.5)["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_activations_change_nothing(kind):
    curves = [train(TrainState(small_model(kind), TrainConfig(recompute=on)), 0, 3) for on in (False, True)]
    assert curves[0] == curves[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_blocks_learn_the_same_and_are_saved_under_the_same_names(kind, tmp_path):
    """A minute of compiling each."""
    eager, compiled = (TrainState(small_model(kind), TrainConfig(compile=compile)) for compile in (False, True))
    for a, b in zip(train(eager, 0, 4), train(compiled, 0, 4), strict=True):
        assert b == pytest.approx(a, rel=1e-4)
    resumed, _ = load_state(save_checkpoint(tmp_path / "c", compiled))
    assert resumed.model.state_dict().keys() == eager.model.state_dict().keys()
    assert train(resumed, 4, 5)[0] == pytest.approx(train(eager, 4, 5)[0], rel=1e-4)


def test_from_pretrained_takes_a_checkpoint_or_a_run(tmp_path):
    state = TrainState(small_model(), TrainConfig())
    train(state, 0, 1)
    for step in (2, 10):
        save_checkpoint(tmp_path / "checkpoints" / f"step_{step}", state)
        train(state, 1, 2)
    latest = load_model(tmp_path / "checkpoints" / "step_10").state_dict()
    for path in (tmp_path, str(tmp_path), tmp_path / "checkpoints" / "step_10"):
        for name, tensor in from_pretrained(path).state_dict().items():
            assert torch.equal(tensor, latest[name])
    with pytest.raises(ValueError, match=r"no checkpoint\.json"):
        from_pretrained(tmp_path / "checkpoints")


def test_a_checkpoint_without_generators_is_refused_to_go_on_with_but_acts(tmp_path):
    path = save_checkpoint(tmp_path / "c", TrainState(small_model(), TrainConfig()))
    arrays = load_file(path / "optimiser.safetensors")
    save_file({"rng": arrays.pop("rng/0"), **arrays}, path / "optimiser.safetensors")
    with pytest.raises(ValueError, match="older version"):
        load_state(path)
    assert from_pretrained(path).data.encoder_id == "fake"


def test_a_checkpoint_of_another_kind_of_device_goes_on_with_fresh_noise_and_says_so(tmp_path, caplog):
    """A CUDA generator's state has 16 bytes, a CPU's thousands."""
    state = TrainState(small_model(), TrainConfig(accumulate=2))
    train(state, 0, 2)
    path = save_checkpoint(tmp_path / "c", state)
    arrays = load_file(path / "optimiser.safetensors")
    for slot in ("rng/0", "rng/1"):
        arrays[slot] = torch.arange(16, dtype=torch.uint8)
    save_file(arrays, path / "optimiser.safetensors")
    curves = [train(load_state(path)[0], 2, 4) for _ in range(2)]
    assert curves[0] == curves[1]
    assert np.isfinite(curves[0][-1]["loss"])
    assert curves[0][0]["loss"] != train(state, 2, 3)[0]["loss"]
    assert len(caplog.messages) == 2  # one for each time that it was loaded
    assert "16 bytes" in caplog.messages[0]
    assert "\n" not in caplog.messages[0]
    assert caplog.records[0].levelname == "WARNING"


def test_a_checkpoint_on_an_object_store_is_whole_or_not_there(monkeypatch):
    place = f"memory://{uuid.uuid4().hex}/checkpoints/step_2"
    straight = TrainState(small_model(), TrainConfig())
    curve = train(straight, 0, 4)
    state = TrainState(small_model(), TrainConfig())
    train(state, 0, 2)
    save_checkpoint(place, state, {"run": "r"})
    resumed, info = load_state(place)
    assert (info.steps, info.extra) == (2, {"run": "r"})
    assert train(resumed, 2, 4) == curve[2:]
    for dies_at in range(3):  # killed while it is replaced: there is none then, never half of each
        left = dies_at
        real = Location.write_bytes

        def dying(self, data, real=real):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            real(self, data)

        with monkeypatch.context() as patch:
            patch.setattr(Location, "write_bytes", dying)
            with pytest.raises(KeyboardInterrupt):
                save_checkpoint(place, resumed)
        with pytest.raises(ValueError, match=r"no checkpoint\.json"):
            load_state(place)
        assert list_checkpoints(place.rsplit("/", 1)[0]) == []
    save_checkpoint(place, resumed)
    assert load_state(place)[0].steps == 4
    assert list_checkpoints(place.rsplit("/", 1)[0]) == [2]
