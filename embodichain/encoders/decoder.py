"""From patch tokens back to a picture: a light convolutional decoder, so that a person can see what tokens hold.

It draws what it was taught to draw from (tokens, frame) pairs of one encoder; what the tokens do not hold comes out
blurred. The encoder's id stands in its file, and tokens of another one are refused.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embodichain.encoders.weights import EMBEDDED_FOLDER, PATCH

_FILE = "decoder.safetensors"
_WIDTHS = (160, 96, 64)  # at 1, 2 and 4 cells per patch and side
_CELL = 4  # pixels per cell at the end


class FrameDecoder(nn.Module):
    """Tokens f32[B, L, C] of one view -> picture f32[B, 3, H, W] in about [0, 1].

    Attributes:
        encoder_id: whose tokens it draws; empty before it was taught.
    """

    def __init__(self, channels: int, encoder_id: str = "") -> None:
        super().__init__()
        self.channels, self.encoder_id = channels, encoder_id
        first, second, third = _WIDTHS
        self.enter = nn.Conv2d(channels, first, 1)
        self.mix = nn.ModuleList([nn.Conv2d(first, first, 3, padding=1) for _ in range(2)])
        self.grow = nn.ModuleList([nn.Conv2d(first, 4 * second, 1), nn.Conv2d(second, 4 * third, 1)])
        self.refine = nn.ModuleList([nn.Conv2d(second, second, 3, padding=1), nn.Conv2d(third, third, 3, padding=1)])
        self.leave = nn.Conv2d(third, 3 * _CELL * _CELL, 3, padding=1)

    def forward(self, tokens_BLC: Tensor, rows: int, columns: int) -> Tensor:
        """Draw tokens that lie row by row in a grid of `rows` x `columns` patches. Raises `ValueError` for others."""
        b, length, channels = tokens_BLC.shape
        if (length, channels) != (rows * columns, self.channels):
            raise ValueError(f"tokens: [{b}, {length}, {channels}], expected [B, {rows} * {columns}, {self.channels}]")
        x = self.enter(tokens_BLC.transpose(1, 2).reshape(b, channels, rows, columns))
        for mix in self.mix:
            x = x + mix(F.gelu(x))
        for grow, refine in zip(self.grow, self.refine, strict=True):
            x = F.pixel_shuffle(grow(F.gelu(x)), 2)
            x = x + refine(F.gelu(x))
        return F.pixel_shuffle(self.leave(F.gelu(x)), _CELL)

    @torch.inference_mode()
    def draw(self, tokens_FLC: np.ndarray, *, views: int, height: int, width: int) -> np.ndarray:
        """u8[F, V, H, W, 3] of f[F, V * L, C], tokens as `DINOv3Encoder` hands them on."""
        rows, columns = height // PATCH, width // PATCH
        frames, length, channels = tokens_FLC.shape
        if length != views * rows * columns:
            raise ValueError(f"tokens: {length} per frame, expected {views} * {rows} * {columns}")
        flat = torch.from_numpy(np.ascontiguousarray(tokens_FLC, dtype=np.float32))
        pictures = self(flat.reshape(frames * views, rows * columns, channels), rows, columns)
        pixels = (pictures.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1)
        return pixels.reshape(-1, views, height, width, 3).numpy()

    def save(self, folder: Path) -> None:
        """Write `decoder.safetensors` (float16), whole or not at all."""
        from safetensors.torch import save_file

        tensors = {name: tensor.half().contiguous() for name, tensor in self.state_dict().items()}
        about = {"encoder_id": self.encoder_id, "channels": str(self.channels)}
        partial = folder / f"{_FILE}.partial"
        save_file(tensors, partial, metadata={"format": "pt", "about": json.dumps(about)})
        os.replace(partial, folder / _FILE)

    @classmethod
    def load(cls, folder: Path = EMBEDDED_FOLDER) -> FrameDecoder:
        """Read what `save` wrote. Raises `ValueError` naming the file where it is missing or broken."""
        from safetensors import SafetensorError, safe_open

        path = folder / _FILE
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["about"])
                decoder = cls(int(about["channels"]), about["encoder_id"])
                decoder.load_state_dict({name: file.get_tensor(name).float() for name in decoder.state_dict()})
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            reason = str(error).strip().split("\n", maxsplit=1)[0]
            raise ValueError(
                f"{path}: no decoder ({reason}); expected a file that `embodichain encoder train` wrote"
            ) from error
        return decoder.eval().requires_grad_(False)
