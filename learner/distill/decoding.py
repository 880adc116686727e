"""Teaching a `FrameDecoder` to draw frames from an encoder's tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from embodichain.encoders.decoder import FrameDecoder
from embodichain.encoders.dinov3 import DINOv3Encoder
from embodichain.encoders.weights import PATCH

EDGES = 1.0  # weight of the differences between neighbours, without which small things blur away


def teach_decoder(
    encoder: DINOv3Encoder,
    rgb: np.ndarray,
    *,
    steps: int,
    pictures: int = 1500,
    batch: int = 16,
    lr: float = 2e-3,
    seed: int = 0,
    on_step: Callable[[int, float], None] = lambda step, error: None,
    stopping: Callable[[], bool] = lambda: False,
) -> FrameDecoder:
    """A decoder of one view's tokens, taught on u8[N, H, W, 3] with absolute errors of pixels and of edges.

    Of the pictures, so many are drawn at the start and encoded once.

    `on_step` is told the mean absolute error of a pixel, in [0, 1]. Seeded.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = FrameDecoder(encoder.channels, encoder.id).to(encoder.device)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=lr, weight_decay=0.01)
    total = max(steps, 3)  # the least that the schedule can divide
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=total, pct_start=max(0.1, 2 / total))
    rng = np.random.default_rng(seed)
    rows, columns = rgb.shape[1] // PATCH, rgb.shape[2] // PATCH
    rgb = rgb[np.sort(rng.choice(len(rgb), size=min(pictures, len(rgb)), replace=False))]
    known = encoder.encode_rgb(rgb[:, None])
    for step in range(steps):
        if stopping():
            break
        chosen = rng.choice(len(rgb), size=min(batch, len(rgb)), replace=False)
        tokens = torch.from_numpy(known[chosen]).to(encoder.device).float()
        wanted = torch.from_numpy(rgb[chosen]).to(encoder.device).permute(0, 3, 1, 2).float() / 255.0
        with torch.autocast(encoder.device.type, torch.bfloat16):
            drawn = decoder(tokens, rows, columns).float()
        off = drawn - wanted
        error = off.abs().mean()
        edges = off.diff(dim=-1).abs().mean() + off.diff(dim=-2).abs().mean()
        optimiser.zero_grad(set_to_none=True)
        (error + EDGES * edges).backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        on_step(step + 1, error.item())
    return decoder.cpu().eval().requires_grad_(False)
