"""Encoders in processes of their own, on the nodes where they are fast: simulators send frames, tokens come back.

An episode's frames go in one call and through the network together, never mixed with another episode's, so its tokens
do not depend on who else asks at the time.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError

from embodichain.contracts import Observation
from embodichain.encoders.dinov3 import DINOv3Encoder, frames_of

PAUSE_S = 0.5  # between two tries


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """What a remote encoder is, without its weights; see `Encoder`."""

    id: str
    max_tokens: int
    channels: int
    dtype: str


class EncodingActor:
    """An image encoder behind Ray; start it with `max_restarts=-1`."""

    def __init__(self, build: Callable[[], DINOv3Encoder]) -> None:
        """`build` runs in the actor's process and loads the weights there."""
        self._encoder = build()

    def shape(self) -> EncoderShape:
        """What it is, once its weights are loaded."""
        encoder = self._encoder
        return EncoderShape(
            id=encoder.id, max_tokens=encoder.max_tokens, channels=encoder.channels, dtype=encoder.dtype.name
        )

    def encode(self, rgb: np.ndarray) -> np.ndarray:
        """u8[N, V, H, W, 3] -> [N, L, C]."""
        return self._encoder.encode_rgb(rgb)


class RemoteEncoder:
    """An `Encoder` that asks `EncodingActor`s in turn; the next one where one has died, until `patience_s` are over.

    Args:
        actors: handles, at least one.
        first: of them to ask first, so that simulators spread over them.
        patience_s: how long to go on asking while all of them are dead or restarting.
    """

    needs_rgb = True

    def __init__(self, actors: Sequence[Any], first: int = 0, *, patience_s: float = 120.0) -> None:
        self._turns = itertools.cycle([*actors[first % len(actors) :], *actors[: first % len(actors)]])
        self._patience_s = patience_s
        shape: EncoderShape = self._ask("shape")
        self.id, self.max_tokens, self.channels = shape.id, shape.max_tokens, shape.channels
        self.dtype = np.dtype(shape.dtype)

    def encode(self, observation: Observation) -> np.ndarray:
        """[L, C] of one observation."""
        return self.encode_all([observation])[0]

    def encode_all(self, observations: Sequence[Observation]) -> np.ndarray:
        """[N, L, C] of the observations of an episode.

        Raises:
            ValueError: no frame was rendered.
            ray.exceptions.RayActorError: no actor answered for `patience_s` seconds.
        """
        return np.asarray(self._ask("encode", frames_of(observations)))

    def token_mask(self, observation: Observation) -> np.ndarray:
        """bool[L], all True."""
        del observation
        return np.ones(self.max_tokens, dtype=bool)

    def _ask(self, method: str, *arguments: Any) -> Any:
        until = time.monotonic() + self._patience_s
        while True:
            try:
                return ray.get(getattr(next(self._turns), method).remote(*arguments))
            except RayActorError:
                if time.monotonic() > until:
                    raise
                time.sleep(PAUSE_S)
