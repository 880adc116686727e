"""Between latent frames [L, C] and model tokens [F, D], packed (poses) or one by one (image patches)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from learner.config import DataSpec, ModelConfig


class FrameProjection(nn.Module):
    """A latent frame to model tokens and back.

    `packed`: one linear map of all L C numbers to `frame_tokens` tokens, cheap and exact for few pose tokens. `token`:
    one token per latent token, the same map for each, plus a learned position.

    Args:
        extra: length of a feature vector per frame (flow time, noise level) that is fed in beside the latents.
        both_ways: whether to own the way back, `out`.
    """

    def __init__(self, config: ModelConfig, data: DataSpec, *, extra: int = 0, both_ways: bool = False) -> None:
        super().__init__()
        self.packed = config.frame_mode == "packed"
        self.count = config.frame_tokens if self.packed else data.tokens
        self.width = config.width
        if self.packed:
            self.inward = nn.Linear(data.tokens * data.channels + extra, self.count * self.width)
        else:
            self.inward = nn.Linear(data.channels + extra, self.width)
            self.position = nn.Parameter(0.02 * torch.randn(self.count, self.width))
        if both_ways:
            wide, numbers = (
                (self.count * self.width, data.tokens * data.channels)
                if self.packed
                else (
                    self.width,
                    data.channels,
                )
            )
            self.outward = nn.Linear(wide, numbers)
            nn.init.zeros_(self.outward.weight)

    def forward(self, tokens: Tensor, extra: Tensor | None = None) -> Tensor:
        """[..., L, C] and, where the projection takes them, [..., extra] -> [..., F, D]."""
        if self.packed:
            flat = tokens.flatten(-2)
            x = self.inward(flat if extra is None else torch.cat((flat, extra), dim=-1))
            return x.unflatten(-1, (self.count, self.width))
        if extra is not None:
            tokens = torch.cat((tokens, extra.unsqueeze(-2).expand(*tokens.shape[:-1], -1)), dim=-1)
        return self.inward(tokens) + self.position

    def out(self, x: Tensor) -> Tensor:
        """[..., F, D] -> [..., L C]."""
        return self.outward(x.flatten(-2)) if self.packed else self.outward(x).flatten(-2)
