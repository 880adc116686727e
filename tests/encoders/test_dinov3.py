"""The DINOv3 encoder: the real `transformers` code path on small seeded weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from embodichain.contracts import Observation
from embodichain.encoders.base import Encoder
from embodichain.encoders.dinov3 import DINOv3Encoder
from embodichain.encoders.weights import EMBEDDED, EMBEDDED_FOLDER

VIEWS, HEIGHT, WIDTH = 2, 32, 48
TOKENS = VIEWS * 2 * 3


def make(weights: str = "random:tiny", **changes: object) -> DINOv3Encoder:
    arguments: dict = {"weights": weights, "views": VIEWS, "height": HEIGHT, "width": WIDTH, **changes}
    return DINOv3Encoder(**arguments)


@pytest.fixture(scope="module")
def encoder() -> DINOv3Encoder:
    return make()


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, VIEWS, HEIGHT, WIDTH, 3), dtype=np.uint8)


def observe(rgb: np.ndarray | None) -> Observation:
    empty = np.zeros((0, 7), dtype=np.float32)
    return Observation(
        proprio=np.zeros(30, dtype=np.float32),
        object_pose=empty,
        object_size=empty[:, :3],
        object_grasp=np.zeros((0, 2, 3), dtype=np.float32),
        goal_pose=empty,
        goal_size=empty[:, :3],
        tool_pose=np.zeros((2, 7), dtype=np.float32),
        rgb=rgb,
    )


def test_implements_the_protocol(encoder: DINOv3Encoder, rgb: np.ndarray) -> None:
    protocol: Encoder = encoder
    tokens = protocol.encode(observe(rgb[0]))
    assert tokens.shape == (protocol.max_tokens, protocol.channels) == (TOKENS, 64)
    assert tokens.dtype == protocol.dtype == np.float16
    assert protocol.needs_rgb
    mask = protocol.token_mask(observe(rgb[0]))
    assert mask.shape == (TOKENS,)
    assert mask.dtype == bool
    assert mask.all()


def test_batching_moves_tokens_by_rounding_only(encoder: DINOv3Encoder, rgb: np.ndarray) -> None:
    batched = encoder.encode_rgb(rgb)
    single = np.stack([encoder.encode(observe(frame)) for frame in rgb])
    split = encoder.encode_rgb(rgb, batch_images=3)
    np.testing.assert_allclose(batched.astype(np.float32), single.astype(np.float32), atol=4e-3)
    np.testing.assert_allclose(batched.astype(np.float32), split.astype(np.float32), atol=4e-3)
    assert batched.astype(np.float32).std() > 0.5


def test_tokens_come_view_by_view_and_row_by_row(encoder: DINOv3Encoder, rgb: np.ndarray) -> None:
    """A patch changed in view 1, row 1, column 2 moves that very token most."""
    changed = rgb[:1].copy()
    changed[0, 1, 16:32, 32:48] = 255 - changed[0, 1, 16:32, 32:48]
    difference = np.abs(encoder.encode_rgb(changed) - encoder.encode_rgb(rgb[:1])).mean(axis=-1)[0]
    assert difference.argmax() == 6 + 1 * 3 + 2
    assert difference[:6].max() == 0.0


def test_equal_to_a_plain_forward_of_the_model(tmp_path: Path, encoder: DINOv3Encoder, rgb: np.ndarray) -> None:
    """Normalisation and the dropped class and register tokens, written out a second time."""
    from transformers import DINOv3ViTModel

    encoder.save_pretrained(tmp_path)
    model = DINOv3ViTModel.from_pretrained(tmp_path).eval()
    images = torch.from_numpy(rgb[0].astype(np.float64) / 255.0)
    pixels = (images - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        hidden = model(pixel_values=pixels.permute(0, 3, 1, 2).float()).last_hidden_state
    assert hidden.shape[1] == 1 + 4 + 6
    expected = hidden[:, 5:].reshape(TOKENS, 64).numpy()
    np.testing.assert_allclose(encoder.encode_rgb(rgb[:1])[0].astype(np.float32), expected, atol=4e-3)


def test_saved_folder_gives_identical_tokens_and_id(tmp_path: Path, encoder: DINOv3Encoder, rgb: np.ndarray) -> None:
    encoder.save_pretrained(tmp_path / "here")
    loaded = make(str(tmp_path / "here"))
    assert loaded.id == encoder.id
    np.testing.assert_array_equal(loaded.encode_rgb(rgb), encoder.encode_rgb(rgb))


def test_the_random_twin_has_the_shape_and_other_weights(
    tmp_path: Path, encoder: DINOv3Encoder, rgb: np.ndarray
) -> None:
    from safetensors.torch import load_file, save_file

    encoder.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({k: v * 1.5 for k, v in tensors.items()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    taught = make(str(tmp_path))
    twin = taught.random_twin()
    assert twin.id == encoder.id != taught.id
    np.testing.assert_array_equal(twin.encode_rgb(rgb[:1]), encoder.encode_rgb(rgb[:1]))


def test_random_weights_are_equal_in_every_process_and_leave_the_generator_alone(encoder: DINOv3Encoder) -> None:
    code = (
        "import torch; torch.manual_seed(7); from embodichain.encoders.dinov3 import DINOv3Encoder; "
        "e = DINOv3Encoder(weights='random:tiny', views=1, height=16, width=16); print(e.id)"
    )
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert other.stdout.strip() == encoder.id
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    make()
    assert torch.equal(torch.rand(1), expected)


def test_presets_differ_in_id(encoder: DINOv3Encoder) -> None:
    mini = make("random:mini")
    assert mini.id != encoder.id
    assert mini.channels == 192


def test_bfloat16_stays_near_float32(encoder: DINOv3Encoder, rgb: np.ndarray) -> None:
    half = make(precision=torch.bfloat16)
    assert half.id == encoder.id
    error = np.abs(half.encode_rgb(rgb).astype(np.float32) - encoder.encode_rgb(rgb).astype(np.float32))
    assert 0.0 < error.mean() < 0.02


def test_one_changed_weight_changes_the_id(tmp_path: Path, encoder: DINOv3Encoder) -> None:
    from safetensors.torch import load_file, save_file

    encoder.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["norm.weight"][0] += 1e-3
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert make(str(tmp_path)).id != encoder.id


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("/no/such/folder", r"encoder\.weights=/no/such/folder: no such folder; expected embedded, a folder"),
        ("./nowhere", r"encoder\.weights=\./nowhere: no such folder"),
        ("random:huge", r"encoder\.weights=random:huge: expected one of random:tiny"),
    ],
)
def test_missing_weights_are_one_line_that_names_the_key(weights: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make(weights)
    assert "\n" not in str(caught.value)


def test_broken_folders_are_refused(tmp_path: Path, encoder: DINOv3Encoder) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(ValueError, match=r"encoder\.weights=.*cannot be loaded"):
        make(str(tmp_path))
    good = tmp_path / "good"
    encoder.save_pretrained(good)
    for name in ("truncated", "partial", "patch", "other"):
        shutil.copytree(good, tmp_path / name)
    (tmp_path / "truncated/model.safetensors").write_bytes((good / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cannot be loaded"):
        make(str(tmp_path / "truncated"))
    tensors = load_file(good / "model.safetensors")
    del tensors["norm.weight"]
    save_file(tensors, tmp_path / "partial/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 tensors are missing, first norm\.weight"):
        make(str(tmp_path / "partial"))
    config = json.loads((good / "config.json").read_text())
    (tmp_path / "patch/config.json").write_text(json.dumps({**config, "patch_size": 8}))
    with pytest.raises(ValueError, match=r"encoder\.weights="):
        make(str(tmp_path / "patch"))
    (tmp_path / "other/config.json").write_text(json.dumps({**config, "model_type": "vit"}))
    with pytest.raises(ValueError, match=r"encoder\.weights=.*config\.json says model_type=vit, expected dinov3_vit"):
        make(str(tmp_path / "other"))


def test_a_hub_id_that_cannot_be_had_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError, match=r"encoder\.weights=nobody/nothing: no such folder, and not on the hub"
    ) as caught:
        make("nobody/nothing")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cached", [False, True])
def test_a_hub_id_gives_the_weights_that_are_downloaded_or_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoder: DINOv3Encoder, rgb: np.ndarray, cached: bool
) -> None:
    """The hub is a saved folder here; it is asked only for what is not in the cache."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    encoder.save_pretrained(tmp_path)
    asked = list[bool]()

    def snapshot_download(name: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        assert (name, allow_patterns) == ("somebody/dinov3", ["config.json", "*.safetensors"])
        asked.append(not local_files_only)
        if local_files_only and not cached:
            raise LocalEntryNotFoundError("not in the cache")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    loaded = make("somebody/dinov3")
    assert asked == ([False] if cached else [False, True])
    assert loaded.id == encoder.id
    np.testing.assert_array_equal(loaded.encode_rgb(rgb[:1]), encoder.encode_rgb(rgb[:1]))


def test_the_packaged_weights_are_small_and_can_be_used(rgb: np.ndarray) -> None:
    """At most 25 MB come with every installation, whatever lies beside the weights included."""
    assert sum(file.stat().st_size for file in EMBEDDED_FOLDER.rglob("*") if file.is_file()) <= 25e6
    packaged = make(EMBEDDED)
    assert packaged.encode_rgb(rgb[:1]).shape == (1, TOKENS, packaged.channels)


def test_wrong_images_are_refused(encoder: DINOv3Encoder, rgb: np.ndarray) -> None:
    with pytest.raises(ValueError, match="has no rgb"):
        encoder.encode(observe(None))
    with pytest.raises(ValueError, match=r"expected uint8\[N, 2, 32, 48, 3\]"):
        encoder.encode_rgb(rgb.astype(np.float32))
    with pytest.raises(ValueError, match=r"expected uint8"):
        encoder.encode_rgb(rgb[:, :1])
    with pytest.raises(ValueError, match=r"encoder\.height=40"):
        make(height=40)


def test_cameras_keep_their_order_and_their_own_tokens(encoder: DINOv3Encoder, rgb: np.ndarray) -> None:
    """Two cameras of one observation: first all tokens of the first one, then all of the second."""
    one = make(views=1)
    both = encoder.encode_rgb(rgb[:2])
    for view in range(VIEWS):
        alone = one.encode_rgb(rgb[:2, view : view + 1])
        part = both[:, view * TOKENS // 2 : (view + 1) * TOKENS // 2]
        np.testing.assert_allclose(part.astype(np.float32), alone.astype(np.float32), atol=4e-3)
