"""What an encoder is: it turns one observation into tokens, once, on the producing side."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from embodichain.contracts import Observation


class Encoder(Protocol):
    """Tokens of one frame, `[L, C]`.

    Attributes:
        id: name and weights hash; stored in every episode and checkpoint, a mismatch is an error.
        needs_rgb: whether `encode` reads `observation.rgb`.
        max_tokens: L.
        channels: C.
        dtype: f32 for `state`, f16 for image latents.
    """

    id: str
    needs_rgb: bool
    max_tokens: int
    channels: int
    dtype: np.dtype

    def encode(self, observation: Observation) -> np.ndarray:
        """Tokens `[L, C]`; rows where `token_mask` is False are zero."""
        ...

    def token_mask(self, observation: Observation) -> np.ndarray:
        """bool[L], which tokens exist."""
        ...
