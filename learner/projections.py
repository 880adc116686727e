"""Between normalised latent frames [L, C_m] and model tokens [F, D]: packed, in groups or one by one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learner.config import DataSpec, ModelConfig


class FrameProjection(nn.Module):
    """A latent frame to model tokens and back.

    `packed`: one linear map of all L C_m numbers to `frame_tokens` tokens, cheap and exact for few pose tokens.
    `grouped`: each L / `frame_tokens` consecutive latent tokens become one model token by a map of their own: where a
    patch lies is then in the weights, and there are few tokens to attend to. `token`: one token per latent token, the
    same map for each, plus a learned position. On the way in a `PatchStem` may come first.

    Args:
        extra: length of a feature vector per frame (flow time, noise level) that is fed in beside the latents.
        both_ways: whether to own the way back, `out`.

    Raises:
        ValueError: the latent tokens do not come out even in groups.
    """

    def __init__(self, config: ModelConfig, data: DataSpec, *, extra: int = 0, both_ways: bool = False) -> None:
        super().__init__()
        self.shared = config.frame_mode == "token"
        self.count = data.tokens if self.shared else config.frame_tokens
        self.width = config.width
        self.groups = self.count if config.frame_mode == "grouped" else 1
        if data.tokens % self.groups:
            raise ValueError(
                f"model.frame_tokens={self.count}: expected a divisor of the {data.tokens} tokens of a frame"
            )
        channels, per_group = config.channels(data), 1 if self.shared else data.tokens // self.groups
        self.stem = PatchStem(data.tokens, channels, config.patch_width) if config.patch_width else None
        numbers = per_group * (config.patch_width or channels)
        wide = self.width if self.shared else self.count * self.width // self.groups
        self.inward = _linear(self.groups, numbers + extra, wide)
        if self.shared:
            self.position = nn.Parameter(0.02 * torch.randn(self.count, self.width))
        if both_ways:
            self.outward = _linear(self.groups, wide, per_group * channels)
            nn.init.zeros_(self.outward.weight)

    def forward(self, tokens: Tensor, extra: Tensor | None = None) -> Tensor:
        """[..., L, C_m] and, where the projection takes them, [..., extra] -> [..., F, D]."""
        if self.stem is not None:
            tokens = self.stem(tokens)
        x = tokens if self.shared else tokens.flatten(-2).unflatten(-1, (self.groups, -1))
        if extra is not None:
            x = torch.cat((x, extra.unsqueeze(-2).expand(*x.shape[:-1], -1)), dim=-1)
        x = self.inward(x)
        return x + self.position if self.shared else x.flatten(-2).unflatten(-1, (self.count, self.width))

    def out(self, x: Tensor) -> Tensor:
        """[..., F, D] -> [..., L C_m]."""
        parts = x if self.shared else x.flatten(-2).unflatten(-1, (self.groups, -1))
        return self.outward(parts).flatten(-2)


class PatchStem(nn.Module):
    """[..., L, C_m] -> [..., L, W]: what a patch shows, by a small MLP that all share, each with a learned position."""

    def __init__(self, tokens: int, channels: int, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(channels, 2 * width), nn.Linear(2 * width, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, 2 * width))

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        return F.silu(self.down(F.silu(self.up(tokens) + self.position)))


class GroupedLinear(nn.Module):
    """A linear map for each of G groups: [..., G, I] -> [..., G, O]. It begins as `nn.Linear` does."""

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(groups, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(groups * outputs).uniform_(-bound, bound))  # flat: no weight decay

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        rows = x.flatten(0, -3).transpose(0, 1)  # [G, N, I]
        y = torch.bmm(rows, self.weight).transpose(0, 1)
        return (y + self.bias.view(y.shape[1:])).unflatten(0, x.shape[:-2])


def _linear(groups: int, inputs: int, outputs: int) -> nn.Linear | GroupedLinear:
    return nn.Linear(inputs, outputs) if groups == 1 else GroupedLinear(groups, inputs, outputs)
