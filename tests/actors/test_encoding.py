"""Encoders in processes of their own: equal tokens, and a death in between is not noticed."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import Any

import numpy as np
import ray

from embodichain.actors.encoding import EncodingActor, RemoteEncoder
from embodichain.contracts import Observation
from embodichain.encoders.dinov3 import DINOv3Encoder

build = partial(DINOv3Encoder, weights="random:tiny", views=1, height=32, width=32)


def observe(rgb: np.ndarray) -> Observation:
    empty = np.zeros((0, 7), dtype=np.float32)
    return Observation(
        proprio=np.zeros(30, dtype=np.float32),
        object_pose=empty,
        object_size=empty[:, :3],
        object_grasp=np.zeros((0, 2, 3), dtype=np.float32),
        goal_pose=empty,
        goal_size=empty[:, :3],
        tool_pose=np.zeros((2, 7), dtype=np.float32),
        rgb=rgb,
    )


def test_a_remote_encoder_gives_the_tokens_of_a_local_one_and_outlives_its_process(ray_cluster: None) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 1, 32, 32, 3), dtype=np.uint8)
    seen = [observe(frame) for frame in frames]
    remotely: Any = ray.remote(num_cpus=0, max_restarts=-1)
    actor = remotely(EncodingActor).remote(build)
    remote, local = RemoteEncoder([actor], first=3, patience_s=60), build()
    assert (remote.id, remote.max_tokens, remote.channels, remote.dtype) == (
        local.id,
        local.max_tokens,
        local.channels,
        local.dtype,
    )
    np.testing.assert_array_equal(remote.encode_all(seen), local.encode_all(seen))
    np.testing.assert_array_equal(remote.encode(seen[2]), local.encode(seen[2]))
    assert remote.token_mask(seen[0]).all()
    os.kill(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
    np.testing.assert_array_equal(remote.encode_all(seen), local.encode_all(seen))
    ray.kill(actor)
