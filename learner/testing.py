"""Synthetic windows for tests and timing: a small reaching world with known dynamics, no simulator.

Two points (one per arm) move a fixed share of their way to a goal at every control step; tokens show positions and
goals through a fixed random map, joints are a linear function of the points, and the expert's action is the next
joints. So the next frame and the chunk are functions of the present one, and a learner that learns nothing shows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from embodichain.contracts import ACTION_DIM, Batch, UnifiedAction, WindowSpec
from learner.batch import TensorBatch, prepare_batch
from learner.build import build_model
from learner.config import DataSpec, ModelConfig, preset


def fake_batch(
    rng: np.random.Generator, size: int, *, spec: WindowSpec | None = None, tokens: int = 4, channels: int = 12
) -> Batch:
    """B windows of the reaching world.

    Args:
        rng: draws start points and goals; the world itself is fixed.
        size: B.
        spec: how windows are cut.
        tokens: L.
        channels: C.
    """
    spec = spec or WindowSpec(frames=2, tau=4, chunk=8)
    k = spec.seen
    steps = spec.tau * k + spec.chunk + 1
    world = np.random.default_rng(7)
    to_token = world.normal(size=(tokens, 12, channels)).astype(np.float32) / 3.0
    to_joint = world.normal(size=(2, 3, 7)).astype(np.float32) / 2.0
    point = rng.uniform(-1, 1, size=(size, 2, 3)).astype(np.float32)
    goal = rng.uniform(-1, 1, size=(size, 2, 3)).astype(np.float32)
    path = [point]
    for _ in range(steps + spec.tau):
        path.append(path[-1] + 0.1 * (goal - path[-1]))
    points = np.stack(path, axis=1)
    joints = np.einsum("btai,aij->btaj", points, to_joint)
    unified = _unified(joints, np.abs(points[..., 0]) < 0.3)
    now = spec.tau * (1 + np.arange(k + 1))
    chunk = now[:k, None] + np.arange(spec.chunk)
    before = now[:k, None] - spec.tau + np.arange(spec.tau)
    scene = np.concatenate((points[:, now], np.broadcast_to(goal[:, None], points[:, now].shape)), axis=2).reshape(
        size, k + 1, 12
    )
    frames = np.einsum("bki,lic->bklc", scene, to_token)
    action_mask = (np.arange(k)[:, None] >= spec.burn_in) & (chunk - now[0] < spec.tau * k)
    return Batch(
        tokens=frames.astype(np.float32),
        token_mask=np.ones((size, tokens), dtype=bool),
        frame_mask=np.ones((size, k + 1), dtype=bool),
        proprio=unified[:, now],
        action=unified[:, chunk + 1],
        action_exists=np.ones((size, k, spec.chunk), dtype=bool),
        action_mask=np.broadcast_to(action_mask, (size, k, spec.chunk)).copy(),
        action_valid=np.broadcast_to(UnifiedAction.joint_control_mask(), (size, ACTION_DIM)).copy(),
        previous_action=unified[:, before + 1],
        previous_mask=np.ones((size, k), dtype=bool),
        instruction=["move both points to their goals"] * size,
        recipe_id=[f"{i:016x}" for i in range(size)],
        start=np.zeros(size, dtype=np.int64),
        pass_index=np.zeros(size, dtype=np.int64),
        inserted_at=np.zeros(size),
        shard=np.zeros(size, dtype=np.int64),
        used_per_window=np.full(size, spec.pairs, dtype=np.int64),
    )


def fake_data(batch: Batch, text_dim: int = 8) -> DataSpec:
    """The `DataSpec` that fits `batch`."""
    return DataSpec(
        tokens=batch.tokens.shape[2],
        channels=batch.tokens.shape[3],
        chunk=batch.action.shape[2],
        tau=batch.previous_action.shape[2],
        text_dim=text_dim,
        encoder_id="fake",
    )


def fake_text(instructions: list[str], text_dim: int = 8) -> np.ndarray:
    """f32[n, text_dim] of unit length: equal texts have equal embeddings."""
    rows = [np.random.default_rng(list(text.encode())).normal(size=text_dim) for text in instructions]
    return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


def _unified(joints: np.ndarray, closed: np.ndarray) -> np.ndarray:
    """Joints [B, T, 2, 7] and gripper states bool[B, T, 2] -> f32[B, T, 30], end-effector dims zero."""
    out = np.zeros((*joints.shape[:2], ACTION_DIM), dtype=np.float32)
    for arm in range(2):
        out[..., UnifiedAction.joints(arm)] = joints[:, :, arm]
        out[..., UnifiedAction.gripper(arm)] = 1.0 - closed[:, :, arm, None]
    return out


def small_batch(seed: int = 0, size: int = 8) -> TensorBatch:
    """`size` prepared windows of 3 frames, tau 4, chunk 6."""
    batch = fake_batch(np.random.default_rng(seed), size, spec=WindowSpec(frames=3, tau=4, chunk=6))
    return prepare_batch(batch, fake_text(batch.instruction))


def small_model(kind: str = "clwm", config: ModelConfig | None = None, **changes: Any) -> Any:
    """A model that fits `small_batch`: `config` or the `tiny` preset of `kind`, with the named settings changed."""
    data = fake_data(fake_batch(np.random.default_rng(0), 1, spec=WindowSpec(frames=3, tau=4, chunk=6)))
    return build_model(replace(config or preset("tiny", kind), **changes), data)


def stirred(model: Any, amount: float = 0.1, seed: int = 0) -> Any:
    """The model itself, every weight moved a little, so that all inputs have effects, as after training."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += amount * torch.randn_like(parameter)
    return model
