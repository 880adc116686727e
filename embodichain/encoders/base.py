"""What an encoder is: it turns one observation into tokens, once, on the producing side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
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

    def encode_all(self, observations: Sequence[Observation]) -> np.ndarray:
        """Tokens `[N, L, C]` of the N >= 1 observations of an episode, in as few passes as the encoder likes."""
        ...

    def token_mask(self, observation: Observation) -> np.ndarray:
        """bool[L], which tokens exist."""
        ...


class FrameByFrame(ABC):
    """For encoders that gain nothing from seeing several frames at once."""

    @abstractmethod
    def encode(self, observation: Observation) -> np.ndarray:
        """See `Encoder.encode`."""

    def encode_all(self, observations: Sequence[Observation]) -> np.ndarray:
        """See `Encoder.encode_all`."""
        return np.stack([self.encode(observation) for observation in observations])
