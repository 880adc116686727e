"""The transformer block that video and action share, the flow-time features, and the attention layout of a frame.

Takes tokens [R, S, D] and a mask, hands on tokens. The block also runs incrementally over cached keys and values, which
is how a policy avoids computing the context again at every solver step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KeyValue = tuple[Tensor, Tensor]
SHORT = 32  # keys; up to here fused attention on a GPU computes mostly padding (measured at 17)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of queries [R, h, S, d] over keys and values [R, h, S', d] -> [R, h, S, d].

    A fused kernel works in tiles of 64 to 128 tokens. A frame of pose tokens is a sequence of 16 in the presets `base`
    and `large`, and there are thousands of them: on an H100 no other kernel took as long.

    Args:
        q: queries.
        k: keys.
        v: values.
        mask: f32[S, S'] added to the scores, or None.
    """
    if q.is_cuda and k.shape[-2] <= SHORT:
        return plain_attention(q, k, v, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask.to(q.dtype))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """The same by its definition; see `attend`."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    weights = (scores if mask is None else scores + mask).softmax(dim=-1)
    return weights.to(v.dtype) @ v


class TimeFeatures(nn.Module):
    """Sines and cosines of a flow time or noise level in [0, 1]: [...] -> [..., dim]."""

    frequency: Tensor

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.dim = dim
        steps = torch.arange(dim // 2) / max(dim // 2 - 1, 1)
        self.register_buffer("frequency", 0.5 * math.pi * 32.0**steps, persistent=False)

    def forward(self, s: Tensor) -> Tensor:
        """Features of `s`, float32."""
        angle = s.unsqueeze(-1) * self.frequency
        return torch.cat((angle.sin(), angle.cos()), dim=-1)


class Block(nn.Module):
    """Pre-norm attention and SiLU MLP side by side on one normalised input (as in ViT-22B, arXiv 2302.05442).

    Side by side, because two wide matrix products cost less on a CPU than four narrow ones in sequence.
    """

    def __init__(self, width: int, heads: int, expand: int, depth: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.up = nn.Linear(width, expand * width)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.down = nn.Linear(expand * width, width)
        for layer in (self.attention_out, self.down):
            nn.init.normal_(layer.weight, std=1.0 / math.sqrt(2 * depth * layer.in_features))
        nn.init.zeros_(self.down.bias)

    def forward(
        self, x: Tensor, mask: Tensor | None, cache: KeyValue | None = None, *, first: int = 0
    ) -> tuple[Tensor, KeyValue]:
        """One block over x [R, S, D].

        Args:
            x: tokens.
            mask: f32[S, S'] added to attention scores (0 or -inf), or None to see everything; S' counts cached keys.
            cache: keys and values [R, h, S_c, D/h] of tokens that came before.
            first: only tokens from here on are wanted; those before serve as keys and values alone (last block).

        Returns:
            The new tokens [R, S - first, D], and keys and values of all tokens up to now.
        """
        h = self.norm(x)
        k, v = (self._split(t) for t in self.key_value(h).chunk(2, dim=-1))
        if first:
            x, h, mask = x[:, first:], h[:, first:], None if mask is None else mask[first:]
        q = self._split(self.query(h))
        if cache is not None:
            k, v = torch.cat((cache[0], k), dim=2), torch.cat((cache[1], v), dim=2)
        seen = attend(q, k, v, mask)
        x = x + self.attention_out(seen.transpose(1, 2).reshape(x.shape)) + self.down(F.silu(self.up(h)))
        return x, (k, v)

    def _split(self, t: Tensor) -> Tensor:
        """[R, S, D] -> [R, h, S, D/h]."""
        return t.unflatten(-1, (self.heads, -1)).transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class FrameLayout:
    """Where the tokens of one frame lie in its sequence, and who sees whom.

    Order: context (frame tokens, then one body token), condition, video, then the action tokens of each draw; the last
    two are what losses read.

    Attributes:
        frame: model tokens of a latent frame. `action`: model tokens of a chunk. `draws`: chunks that share a context.
    """

    frame: int
    action: int
    draws: int

    @property
    def context(self) -> slice:
        """Tokens that every other token sees and that see only each other."""
        return slice(0, self.frame + 1)

    @property
    def condition(self) -> slice:
        """Next-frame tokens shown to the action stage: they see the context and themselves."""
        return slice(self.frame + 1, 2 * self.frame + 1)

    @property
    def video(self) -> slice:
        """Noisy next-frame tokens: they see the context and themselves."""
        return slice(2 * self.frame + 1, 3 * self.frame + 1)

    @property
    def actions(self) -> slice:
        """All action tokens: a draw sees context, condition and itself."""
        start = 3 * self.frame + 1
        return slice(start, start + self.action * self.draws)

    @property
    def length(self) -> int:
        """S, tokens per frame."""
        return self.actions.stop

    def visible(self) -> Tensor:
        """bool[S, S]: whether the row's token sees the column's token."""
        seen = torch.zeros(self.length, self.length, dtype=torch.bool)
        seen[:, self.context] = True
        seen[self.video, self.video] = True
        seen[self.condition, self.condition] = True
        seen[self.actions, self.condition] = True
        for draw in range(self.draws):
            start = self.actions.start + draw * self.action
            own = slice(start, start + self.action)
            seen[own, own] = True
        return seen

    def mask(self) -> Tensor:
        """f32[S, S], 0 where visible and -inf elsewhere."""
        return torch.zeros(self.length, self.length).masked_fill(~self.visible(), -math.inf)
