"""What evaluation knows of a policy: two methods. Anything that has them can be scored."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Policy(Protocol):
    """A closed-loop policy, one episode at a time.

    Attributes:
        replan: control steps of each chunk that are executed before `step` is asked again.
        encoder_id: the encoder whose tokens it was trained on; a mismatch is an error.
    """

    replan: int
    encoder_id: str

    def reset(self, instruction: str) -> None:
        """Forget the last episode and take the instruction of the next."""
        ...

    def step(self, tokens: np.ndarray, token_mask: np.ndarray, proprio: np.ndarray) -> np.ndarray:
        """Tokens [L, C], mask bool[L], proprio f32[P] -> action chunk f32[N, A], absolute targets, N >= replan."""
        ...
