"""What the tests of datasets share: episodes with frames that a video can hold, each of which says where it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from embodichain.contracts import Episode
from embodichain.replay import fake_episode

HEIGHT, WIDTH = 64, 96


def frame(seed: int, step: int, view: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """u8[H, W, 3]: slopes of colour that differ between episodes and views, and a bar that moves with the step."""
    y, x = np.mgrid[0:height, 0:width]
    red = 40 + 100 * x / width + 60 * view
    green = 30 + 25 * (seed % 5) + 100 * y / height
    blue = np.full_like(red, 60.0)
    bar = np.abs(x - (4 + 2.0 * step) % width) < 4
    picture = np.stack([red, green, blue], axis=-1)
    picture[bar] = 230.0
    return picture.astype(np.uint8)


def recorded(seed: int, length: int, *, tau: int = 1, views: int = 1, video: bool = True) -> Episode:
    """An episode of random numbers with frames at every `tau`-th step; every other one has a task of its own."""
    plain = replace(fake_episode(seed, length, 1, 1, mistakes=0.2), tokens=None, token_mask=None, encoder_id="")
    rgb = np.stack([[frame(seed, t, v) for v in range(views)] for t in range(0, length + 1, tau)]) if video else None
    mask = np.arange(30) % 15 >= 7
    assert plain.label_valid is not None
    plain.label_valid[0] = True
    return replace(plain, rgb=rgb, tau=tau, action_valid=mask, instruction=f"move it, way {seed % 2}")


@pytest.fixture
def make() -> Callable[..., Episode]:
    return recorded


@pytest.fixture
def picture() -> Callable[..., np.ndarray]:
    return partial(frame)
