"""From a rendered frame to what a camera delivers: exposure, white balance, photon and read noise.

Takes and hands on sRGB-like bytes as SAPIEN's shaders write them, light ** (1 / 2.2); works on linear light between.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
from scipy.special import ndtri

from envs.appearance import Sensor

GAMMA = 2.2  # of SAPIEN's shaders
LEVELS = 2**16 - 1  # linear light is quantised to these before it is written as bytes


@cache
def _linear() -> np.ndarray:
    """f32[256]: byte -> linear light in [0, 1]."""
    return ((np.arange(256) / 255.0) ** GAMMA).astype(np.float32)


@cache
def _coded() -> np.ndarray:
    """u8[LEVELS + 1]: linear light, quantised -> byte."""
    return np.rint((np.arange(LEVELS + 1) / LEVELS) ** (1.0 / GAMMA) * 255.0).astype(np.uint8)


@cache
def _normal() -> np.ndarray:
    """f32[2^16]: quantiles of the standard normal; indexed by random 16-bit numbers, a third of a generator's cost."""
    return ndtri((np.arange(2**16) + 0.5) / 2**16).astype(np.float32)


def _encode(light: np.ndarray) -> np.ndarray:
    """u8 of linear light; what is beyond [0, 1] is clipped. Overwrites its input."""
    np.clip(light, 0.0, 1.0, out=light)
    light *= LEVELS
    light += 0.5
    return _coded().take(light.astype(np.uint16))


def expose(frame: np.ndarray, sensor: Sensor, step: int) -> np.ndarray:
    """u8[H, W, 3] as it would be without noise: exposure and white balance at a control step."""
    gains = np.asarray(sensor.gains_at(step), dtype=np.float32)
    curves = _encode(_linear()[:, None] * gains)
    return np.stack([curves[frame[..., c], c] for c in range(3)], axis=-1)


def develop(frame: np.ndarray, sensor: Sensor, step: int, camera: str) -> np.ndarray:
    """u8[H, W, 3] as the sensor of the camera called `camera` delivers it at a control step.

    The noise is seeded by sensor, step and camera: it is the same whatever other frames were taken.
    """
    place = int.from_bytes(hashlib.blake2b(camera.encode(), digest_size=4).digest(), "little")
    rng = np.random.default_rng([sensor.seed, step, place])
    light = _linear().take(frame) * np.asarray(sensor.gains_at(step), dtype=np.float32)
    deviation = light * np.float32(sensor.shot**2)
    deviation += np.float32(sensor.read**2)
    np.sqrt(deviation, out=deviation)
    deviation *= _normal().take(np.frombuffer(rng.bytes(2 * frame.size), dtype="<u2").reshape(frame.shape))
    light += deviation
    return _encode(light)
