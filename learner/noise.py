"""Random numbers of training and sampling: drawn where the generator is, used where the model is.

A generator on the CPU gives the same numbers whatever device the model is on, so that a loss curve of a GPU can be laid
over that of a CPU (`train.noise`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def uniform(shape: Sequence[int], rng: torch.Generator, device: torch.device) -> Tensor:
    """f32[shape] on `device`, uniform in [0, 1)."""
    return torch.rand(tuple(shape), generator=rng, device=rng.device).to(device)


def normal(shape: Sequence[int], rng: torch.Generator, device: torch.device) -> Tensor:
    """f32[shape] on `device`, of the standard normal law."""
    return torch.randn(tuple(shape), generator=rng, device=rng.device).to(device)
