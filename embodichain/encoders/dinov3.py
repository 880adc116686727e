"""The `dinov3` encoder: camera frames become the patch tokens of a frozen DINOv3 vision transformer.

Takes u8 images `[V, H, W, 3]`, hands on f16 latents `[L, C]`, L = V x H/16 x W/16, view by view and row by row
(DexWorldModel, arXiv 2604.16484: f_t = Phi_DINO(o_t)). The network is `transformers`' `DINOv3ViTModel`; its
weights come from a local folder, from the hub, or, for tests and smoke runs, from a seeded random draw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from embodichain.contracts import Observation

if TYPE_CHECKING:
    from transformers import DINOv3ViTModel

PATCH = 16
_RANDOM = "random:"
_RANDOM_SEED = 20_260_416
# hidden size, layers, heads of the random-init presets; `small` has the shape of the published ViT-S/16.
_PRESETS: dict[str, tuple[int, int, int]] = {
    "tiny": (64, 2, 2),
    "mini": (192, 4, 3),
    "small": (384, 12, 6),
}
_EXPECTED = f"a folder with config.json and model.safetensors, a hub id, or {_RANDOM}{{{'|'.join(_PRESETS)}}}"
# The image statistics DINOv3 was trained with (its preprocessor_config.json).
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class DINOv3Encoder:
    """Patch tokens of each camera view; class and register tokens are dropped. Implements `Encoder`.

    Attributes:
        id: shape of the network and hash of its weights; the same weights have the same id on every
            machine, whatever folder they lie in.
        needs_rgb: True.
        max_tokens: L = views * height/16 * width/16.
        channels: C, the hidden size (768 for the base model of the paper).
        dtype: float16.
    """

    needs_rgb = True
    dtype = np.dtype(np.float16)

    def __init__(
        self,
        *,
        weights: str,
        views: int,
        height: int,
        width: int,
        device: str = "cpu",
        precision: torch.dtype = torch.float32,
    ) -> None:
        """Load the weights.

        Args:
            weights: a local folder written by `save_pretrained`, a hub id such as
                `facebook/dinov3-vits16-pretrain-lvd1689m`, or `random:tiny | mini | small`.
            views: V, cameras per observation.
            height: pixels, a positive multiple of 16.
            width: pixels, a positive multiple of 16.
            device: torch device.
            precision: dtype of the network; bfloat16 halves the time and moves tokens by about 1 %.

        Raises:
            ValueError: weights that are missing, incomplete or no DINOv3 with patch 16; a wrong size.
        """
        if views < 1:
            raise ValueError(f"encoder.cameras: {views} views, expected at least 1")
        for key, value in (("height", height), ("width", width)):
            if value < PATCH or value % PATCH:
                raise ValueError(f"encoder.{key}={value}: expected a positive multiple of {PATCH}")
        model = _load_model(weights)
        self.id = f"dinov3-{model.config.hidden_size}x{model.config.num_hidden_layers}-{_weights_hash(model)}"
        self.channels = int(model.config.hidden_size)
        self.max_tokens = views * (height // PATCH) * (width // PATCH)
        self._skip = 1 + int(model.config.num_register_tokens)
        self._frame_shape = (views, height, width, 3)
        self._device = torch.device(device)
        self._precision = precision
        self._model = model.eval().requires_grad_(False).to(self._device, precision)
        self._mean_C11 = torch.tensor(_MEAN, device=self._device).view(3, 1, 1)
        self._std_C11 = torch.tensor(_STD, device=self._device).view(3, 1, 1)

    def encode(self, observation: Observation) -> np.ndarray:
        """f16[L, C] of one observation. Raises `ValueError` where no frame was rendered."""
        return self.encode_rgb(frames_of([observation]))[0]

    def encode_all(self, observations: Sequence[Observation]) -> np.ndarray:
        """f16[N, L, C] of the observations of an episode. Raises `ValueError` where no frame was rendered."""
        return self.encode_rgb(frames_of(observations))

    def token_mask(self, observation: Observation) -> np.ndarray:
        """bool[L], all True: every patch of every view exists, whatever the observation holds."""
        return np.ones(self.max_tokens, dtype=bool)

    def encode_rgb(self, rgb: np.ndarray, *, batch_images: int = 16) -> np.ndarray:
        """Encode N frames of V views each.

        Args:
            rgb: u8[N, V, H, W, 3].
            batch_images: images per forward pass, over frames and views.

        Returns:
            f16[N, L, C], final layer norm applied. How frames are batched moves a token by rounding only.

        Raises:
            ValueError: another shape or dtype, or a token that does not fit f16.
        """
        if rgb.ndim != 5 or rgb.shape[1:] != self._frame_shape or rgb.dtype != np.uint8:
            expected = ", ".join(str(n) for n in self._frame_shape)
            raise ValueError(f"rgb: {rgb.dtype}{list(rgb.shape)}, expected uint8[N, {expected}]")
        frames = rgb.shape[0]
        tokens = np.zeros((frames, self.max_tokens, self.channels), dtype=np.float16)
        images = np.ascontiguousarray(rgb.reshape(-1, *self._frame_shape[1:]))
        flat = tokens.reshape(len(images), -1, self.channels)
        for start in range(0, len(images), batch_images):
            flat[start : start + batch_images] = self._forward(images[start : start + batch_images])
        if not np.isfinite(tokens).all():
            raise ValueError(f"encoder {self.id}: tokens are not finite in float16; these weights cannot be used")
        return tokens

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, from which `weights=folder` makes an equal encoder."""
        self._model.save_pretrained(str(folder))

    def _forward(self, images_BHW3: np.ndarray) -> np.ndarray:
        """u8[B, H, W, 3] -> f16[B, H/16 * W/16, C]."""
        with torch.inference_mode():
            pixels_B3HW = self._normalise(torch.from_numpy(images_BHW3).to(self._device))
            hidden_BLC = self._model(pixel_values=pixels_B3HW).last_hidden_state
            return hidden_BLC[:, self._skip :].to(torch.float16).cpu().numpy()

    def _normalise(self, images_BHW3: Tensor) -> Tensor:
        pixels_B3HW = images_BHW3.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        return ((pixels_B3HW - self._mean_C11) / self._std_C11).to(self._precision)


def frames_of(observations: Sequence[Observation]) -> np.ndarray:
    """u8[N, V, H, W, 3], what the cameras saw. Raises `ValueError` where no frame was rendered."""
    frames = [observation.rgb for observation in observations if observation.rgb is not None]
    if len(frames) < len(observations):
        raise ValueError("encoder.name=dinov3: this observation has no rgb; expected a rendered frame")
    return np.stack(frames)


def _load_model(weights: str) -> DINOv3ViTModel:
    """The network in float32. Raises `ValueError` naming `encoder.weights`; never falls back."""
    if weights.startswith(_RANDOM):
        return _random_model(weights.removeprefix(_RANDOM))
    path = Path(weights).expanduser()
    if not path.is_dir():
        if path.is_absolute() or weights.count("/") != 1 or weights.startswith((".", "~")):
            raise ValueError(f"encoder.weights={weights}: no such folder; expected {_EXPECTED}")
        path = _from_hub(weights)
    from safetensors import SafetensorError
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    try:
        with _quiet():
            config = DINOv3ViTConfig.from_pretrained(str(path))
            # With `output_loading_info` this is a pair, which its annotation does not say.
            loaded: Any = DINOv3ViTModel.from_pretrained(
                str(path), config=config, output_loading_info=True, use_safetensors=True, dtype=torch.float32
            )
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"encoder.weights={weights}: cannot be loaded ({_first_line(error)}); expected {_EXPECTED}"
        ) from error
    model, info = loaded
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ValueError(
            f"encoder.weights={weights}: {len(missing)} tensors are missing, first {missing[0]}; "
            "expected all weights of a DINOv3 ViT (the rest would be random)"
        )
    if model.config.patch_size != PATCH:
        raise ValueError(f"encoder.weights={weights}: patch {model.config.patch_size}, expected {PATCH}")
    return model


def _from_hub(name: str) -> Path:
    """Folder of a hub model, downloaded if it is not in the local cache yet."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    files = ["config.json", "*.safetensors"]
    try:
        cached = Path(snapshot_download(name, allow_patterns=files, local_files_only=True))
        if any(cached.glob("*.safetensors")):
            return cached
    except (OSError, HFValidationError):
        pass  # not in the cache: ask the hub
    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise ValueError(
            f"encoder.weights={name}: no such folder, and not on the hub or the hub cannot be reached "
            f"({_first_line(error)}); expected {_EXPECTED}"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]


def _random_model(preset: str) -> DINOv3ViTModel:
    """A network whose weights follow from the preset alone, equal in every process.

    Drawn with NumPy's own generator: torch's differs between vector instruction sets in the last bit.
    """
    if preset not in _PRESETS:
        raise ValueError(
            f"encoder.weights={_RANDOM}{preset}: expected one of {', '.join(_RANDOM + p for p in _PRESETS)}"
        )
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    hidden, layers, heads = _PRESETS[preset]
    with torch.random.fork_rng(devices=[]):
        model = DINOv3ViTModel(
            DINOv3ViTConfig(
                hidden_size=hidden,
                intermediate_size=4 * hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_register_tokens=4,
            )
        )
    rng = np.random.default_rng(_RANDOM_SEED)
    for name, parameter in sorted(model.named_parameters()):
        if parameter.ndim > 1 and not name.endswith("mask_token"):
            draw = 0.02 * np.clip(rng.standard_normal(parameter.shape, dtype=np.float32), -2.0, 2.0)
            parameter.data.copy_(torch.from_numpy(draw))
    return model


def _weights_hash(model: DINOv3ViTModel) -> str:
    """12 hex digits over every tensor's name, shape and float32 bytes, and what else decides a token."""
    config = model.config
    digest = hashlib.blake2b(digest_size=6)
    digest.update(
        repr((config.num_attention_heads, config.rope_theta, config.layer_norm_eps, config.hidden_act)).encode()
    )
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().to(torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no load report on the terminal, and the caller's settings back afterwards."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
