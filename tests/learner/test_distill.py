"""Self-distillation: crops, balanced targets, the losses' gradients, exact resumption, and what is written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from embodichain.encoders.decoder import FrameDecoder
from embodichain.encoders.dinov3 import DINOv3Encoder
from learner.distill import Distillation, DistillConfig
from learner.distill.crops import boxes, cut, hidden_patches, relight
from learner.distill.decoding import teach_decoder
from learner.distill.losses import balanced, cross_entropy, patches_of
from learner.distill.training import distil

TINY = DistillConfig(
    width=32, depth=1, heads=2, head_width=32, bottleneck=16, prototypes=8, patch_prototypes=16, steps=6, batch=4,
    global_size=32, local_size=16, bf16=False, warmup=0.2,
)  # fmt: skip


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    """Coloured squares at random places."""
    rng = np.random.default_rng(0)
    frames = np.full((24, 48, 48, 3), 90, dtype=np.uint8)
    for frame in frames:
        x, y = rng.integers(0, 36, 2)
        frame[y : y + 12, x : x + 12] = rng.integers(0, 256, 3)
    return frames


def test_a_crop_of_everything_is_the_picture() -> None:
    picture = torch.rand(2, 3, 32, 32)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(2, 1)
    torch.testing.assert_close(cut(picture, whole, 32), picture)
    right = torch.tensor([[0.5, 0.0, 0.5, 1.0]]).repeat(2, 1)  # the right half, all of its height
    torch.testing.assert_close(
        cut(picture, right, 32).mean(dim=(2, 3)), picture[..., 16:].mean(dim=(2, 3)), atol=0.02, rtol=0
    )


def test_crops_stay_inside_and_cover_what_was_asked_for() -> None:
    torch.manual_seed(0)
    drawn = boxes(500, (0.1, 0.4))
    assert (drawn[:, :2].abs() + drawn[:, 2:] <= 1.0 + 1e-6).all()
    share = drawn[:, 2] * drawn[:, 3]
    assert share.min() >= 0.1 - 1e-6
    assert share.max() <= 0.4 + 1e-6


def test_relighting_keeps_the_range_and_which_channel_is_strongest() -> None:
    torch.manual_seed(0)
    red = torch.tensor([0.6, 0.1, 0.1]).view(1, 3, 1, 1).repeat(50, 1, 16, 16)
    lit = relight(red)
    assert lit.min() >= 0.0
    assert lit.max() <= 1.0
    assert (lit.mean(dim=(2, 3)).argmax(dim=1) == 0).all()
    assert lit.mean(dim=(1, 2, 3)).std() > 0.02


def test_hidden_patches_are_as_many_as_asked_for() -> None:
    torch.manual_seed(0)
    hidden = hidden_patches(200, 20, (0.25, 0.5), masked=0.5).sum(dim=1)
    assert ((hidden == 0) | ((hidden >= 5) & (hidden <= 10))).all()
    assert 60 < (hidden == 0).sum() < 140


def test_balanced_targets_use_every_prototype_alike() -> None:
    torch.manual_seed(0)
    scores = torch.randn(512, 8) * 0.05
    scores[:, 3] += 0.3  # one prototype is everybody's favourite
    targets = balanced(scores, 2.0)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(512))
    assert targets.mean(dim=0).max() < 0.14 < torch.softmax(scores / 0.1, dim=1).mean(dim=0).max()


def test_targets_of_tokens_that_hardly_differ_are_as_sharp_as_others() -> None:
    torch.manual_seed(0)
    scores = torch.randn(64, 8)
    torch.testing.assert_close(balanced(1e-4 * scores + 0.5, 2.0), balanced(scores, 2.0), atol=2e-3, rtol=0)


def test_cross_entropy_is_least_at_the_target() -> None:
    scores = torch.randn(5, 4)
    target = torch.softmax(scores / 0.1, dim=1)
    least = cross_entropy(target, scores, 0.1)
    assert least == pytest.approx(float(-(target * target.log()).sum(dim=1).mean()), abs=1e-4)
    assert cross_entropy(target, scores.flip(0), 0.1) > least


def test_patches_come_row_by_row_without_mean_and_scale() -> None:
    pictures = torch.zeros(1, 3, 32, 32)
    pictures[0, :, 0:16, 16:32] = torch.rand(3, 16, 16)
    patches = patches_of(pictures, 16)
    assert patches.shape == (1, 4, 768)
    assert patches[0, 1].abs().sum() > 0
    assert patches[0, [0, 2, 3]].abs().sum() == 0
    torch.testing.assert_close(patches_of(2.0 * pictures + 0.5, 16).mean(dim=-1), torch.zeros(1, 4), atol=1e-6, rtol=0)


def test_a_step_moves_the_student_and_the_teacher_follows(rgb: np.ndarray) -> None:
    run = Distillation(TINY)
    before = [p.clone() for p in run.student.parameters()]
    metrics = run.train_step(rgb[run.rows(len(rgb))])
    assert math.isfinite(metrics["loss"])
    assert metrics["gain_patch"] == pytest.approx(math.log(16) - metrics["patch"])
    moved = [(p - b).abs().max() for p, b in zip(run.student.parameters(), before, strict=True)]
    followed = [(p - b).abs().max() for p, b in zip(run.teacher.parameters(), before, strict=True)]
    assert max(moved) > 0
    assert 0 < max(followed) < 0.1 * max(moved)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path, rgb: np.ndarray) -> None:
    losses: dict[str, list[float]] = {"whole": [], "parts": []}
    whole, path = Distillation(TINY), tmp_path / "state.pt"
    distil(whole, rgb, tmp_path / "whole.pt", lambda _, m: losses["whole"].append(m["loss"]), lambda: False)
    first = Distillation(TINY)
    distil(first, rgb, path, lambda _, m: losses["parts"].append(m["loss"]), lambda: first.step == 3)
    assert len(losses["parts"]) == 3
    torch.rand(7)  # whatever else draws numbers
    second = Distillation(TINY)
    second.restore(path)
    distil(second, rgb, path, lambda _, m: losses["parts"].append(m["loss"]), lambda: False)
    assert losses["parts"] == losses["whole"]
    for one, other in zip(whole.teacher.parameters(), second.teacher.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_non_finite_loss_changes_nothing(rgb: np.ndarray) -> None:
    run = Distillation(TINY)
    run.student.cls_head.prototypes.data[0, 0] = math.nan
    before = run.student.backbone.state_dict()["norm.weight"].clone()
    assert math.isnan(run.train_step(rgb[:4])["loss"])
    assert torch.equal(run.student.backbone.state_dict()["norm.weight"], before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_it_learns_is_exported_and_drawn(rgb: np.ndarray, tmp_path: Path) -> None:
    run = Distillation(TINY, "cuda")
    losses = [run.train_step(rgb[:4])["loss"] for _ in range(TINY.steps)]
    assert np.isfinite(losses).all()
    run.export(tmp_path)
    encoders = [DINOv3Encoder(weights=str(tmp_path), views=1, height=48, width=48, device=d) for d in ("cpu", "cuda")]
    one, other = (encoder.encode_rgb(rgb[:4, None]) for encoder in encoders)
    np.testing.assert_allclose(one, other, atol=0.01)
    assert next(teach_decoder(encoders[1], rgb, steps=3).parameters()).device.type == "cpu"


def test_a_state_of_another_recipe_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    Distillation(TINY).save(path)
    other = Distillation(DistillConfig(**{**TINY.__dict__, "batch": 8}))
    with pytest.raises(ValueError, match=r"batch=4, this run wants 8"):
        other.restore(path)
    torch.save(torch.load(path, weights_only=True) | {"device": "cuda"}, path)
    with pytest.raises(ValueError, match="begun on cuda, this run is on cpu"):
        Distillation(TINY).restore(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a state of a distillation"):
        Distillation(TINY).restore(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "heads=5"),
        ({"local_size": 40}, "local_size=40"),
        ({"batch": 1}, "batch=1"),
        ({"mask_ratio": (0.5, 0.2)}, "mask_ratio"),
    ],
)
def test_impossible_recipes_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillConfig(**change)


def test_what_is_exported_is_an_encoder_and_its_decoder_learns_to_draw(tmp_path: Path, rgb: np.ndarray) -> None:
    run = Distillation(TINY)
    run.train_step(rgb[:4])
    run.export(tmp_path)
    encoder = DINOv3Encoder(weights=str(tmp_path), views=1, height=48, width=48)
    assert encoder.id.startswith("dinov3-32x1-")
    errors: list[float] = []
    decoder = teach_decoder(encoder, rgb, steps=40, batch=8, on_step=lambda _, error: errors.append(error))
    assert np.mean(errors[-5:]) < 0.6 * errors[0]
    decoder.save(tmp_path)
    again = FrameDecoder.load(tmp_path)
    assert again.encoder_id == encoder.id
    drawn = again.draw(encoder.encode_rgb(rgb[:2, None]), views=1, height=48, width=48)
    assert drawn.shape == (2, 1, 48, 48, 3)
    assert drawn.dtype == np.uint8
    (tmp_path / "decoder.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"decoder\.safetensors: no decoder"):
        FrameDecoder.load(tmp_path)
    with pytest.raises(ValueError, match="tokens:"):
        again.draw(np.zeros((1, 4, 32), dtype=np.float16), views=1, height=48, width=48)
