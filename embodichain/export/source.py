"""Datasets as a source of the replay: episodes that carry tokens of the run's image encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from embodichain.contracts import Episode


@runtime_checkable
class ImageEncoder(Protocol):
    """What `encoded` needs of an encoder (`embodichain.encoders.DINOv3Encoder` is one)."""

    id: str
    max_tokens: int

    def encode_rgb(self, rgb: np.ndarray) -> np.ndarray:
        """u8[N, V, H, W, 3] -> f16[N, L, C]."""
        ...


def encoded(episodes: Iterable[Episode], encoder: object) -> Iterator[Episode]:
    """The episodes with tokens in place of frames, as a replay takes them.

    Raises:
        ValueError: an encoder that does not read images, at once; an episode without frames, when it comes up.
    """
    if not isinstance(encoder, ImageEncoder):
        name = getattr(encoder, "id", type(encoder).__name__)
        raise ValueError(
            f"encoder {name}: its tokens are made from the simulator's state, which a dataset does not hold; "
            "expected encoder.name=dinov3"
        )
    return (_encode(episode, encoder) for episode in episodes)


def _encode(episode: Episode, encoder: ImageEncoder) -> Episode:
    if episode.rgb is None:
        raise ValueError(f"episode {episode.recipe.id}: no frames, expected a dataset with videos")
    return replace(
        episode,
        tokens=encoder.encode_rgb(episode.rgb),
        token_mask=np.ones(encoder.max_tokens, dtype=bool),
        encoder_id=encoder.id,
        rgb=None,
    )
