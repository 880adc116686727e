"""The `dinov3` encoder: camera frames become the patch tokens of a frozen DINOv3 vision transformer.

Takes u8 images `[V, H, W, 3]`, hands on f16 latents `[L, C]`, L = V x H/16 x W/16, view by view and row by row
(DexWorldModel, arXiv 2604.16484: f_t = Phi_DINO(o_t)). The network is `transformers`' `DINOv3ViTModel`; its
weights are the small ones in this package, or come from a local folder or the hub (`weights.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from embodichain.contracts import Observation
from embodichain.encoders.weights import PATCH, load_model, random_model_of, weights_hash

if TYPE_CHECKING:
    from transformers import DINOv3ViTModel

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
        device: where the network is.
    """

    needs_rgb = True
    dtype = np.dtype(np.float16)

    def __init__(
        self,
        *,
        weights: str | DINOv3ViTModel,
        views: int,
        height: int,
        width: int,
        device: str = "cpu",
        precision: torch.dtype = torch.float32,
    ) -> None:
        """Load the weights.

        Args:
            weights: `embedded`, a local folder written by `save_pretrained`, a hub id such as
                `facebook/dinov3-vits16-pretrain-lvd1689m`, `random:tiny | mini | small`, or a network.
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
        model = load_model(weights) if isinstance(weights, str) else weights
        self.id = f"dinov3-{model.config.hidden_size}x{model.config.num_hidden_layers}-{weights_hash(model)}"
        self.channels = int(model.config.hidden_size)
        self.max_tokens = views * (height // PATCH) * (width // PATCH)
        self._skip = 1 + int(model.config.num_register_tokens)
        self._frame_shape = (views, height, width, 3)
        self.device = torch.device(device)
        self._precision = precision
        self._model = model.eval().requires_grad_(False).to(self.device, precision)

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

    def random_twin(self) -> DINOv3Encoder:
        """An encoder of the same shape with seeded random weights: what these ones are to be compared with."""
        views, height, width, _ = self._frame_shape
        model = random_model_of(self._model.config)
        return DINOv3Encoder(weights=model, views=views, height=height, width=width, device=str(self.device))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, from which `weights=folder` makes an equal encoder."""
        self._model.save_pretrained(str(folder))

    def _forward(self, images_BHW3: np.ndarray) -> np.ndarray:
        """u8[B, H, W, 3] -> f16[B, H/16 * W/16, C]."""
        with torch.inference_mode():
            images_B3HW = torch.from_numpy(images_BHW3).to(self.device).permute(0, 3, 1, 2).to(torch.float32) / 255.0
            pixels_B3HW = pixels_of(images_B3HW).to(self._precision)
            hidden_BLC = self._model(pixel_values=pixels_B3HW).last_hidden_state
            return hidden_BLC[:, self._skip :].to(torch.float16).cpu().numpy()


def pixels_of(images_B3HW: Tensor) -> Tensor:
    """Pictures in [0, 1] as the network takes them: each channel less its mean, over its deviation."""
    mean = torch.tensor(_MEAN, device=images_B3HW.device).view(3, 1, 1)
    std = torch.tensor(_STD, device=images_B3HW.device).view(3, 1, 1)
    return (images_B3HW - mean) / std


def frames_of(observations: Sequence[Observation]) -> np.ndarray:
    """u8[N, V, H, W, 3], what the cameras saw. Raises `ValueError` where no frame was rendered."""
    frames = [observation.rgb for observation in observations if observation.rgb is not None]
    if len(frames) < len(observations):
        raise ValueError("encoder.name=dinov3: this observation has no rgb; expected a rendered frame")
    return np.stack(frames)
