"""Classifier-free guidance: instructions are left out of some windows in training, so that acting can lean on them.

v = v_free + w (v_told - v_free) (arXiv 2207.12598). The missing instruction is the zero vector of the normalised text.
A guided model keeps every sequence twice, told first, then free, memory included: each half sees what training showed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learner.flow import Velocity
from learner.noise import uniform


def drop_text(text: Tensor, probability: float, rng: torch.Generator | None) -> Tensor:
    """Rows of normalised texts [B, D_text] set to zero with `probability`; none without `rng`."""
    if rng is None or probability == 0.0:
        return text
    dropped = uniform((len(text),), rng, text.device) < probability
    return torch.where(dropped[:, None], 0.0, text)


def twice(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Every tensor [B, ...] stacked on itself, [2 B, ...]."""
    return tuple(torch.cat((tensor, tensor)) for tensor in tensors)


def told_and_free(text: Tensor) -> Tensor:
    """Normalised texts [B, D_text] and as many missing ones, [2 B, D_text]."""
    return torch.cat((text, torch.zeros_like(text)))


def guided(velocity: Velocity, scale: float) -> Velocity:
    """The guided velocity of samples [B, n], from one that takes told and free rows [2 B, n]; itself at scale 1."""
    if scale == 1.0:
        return velocity

    def lean(x: Tensor, s: Tensor) -> Tensor:
        told, free = velocity(*twice(x, s)).chunk(2)
        return torch.lerp(free, told, scale)

    return lean
