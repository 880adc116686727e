"""Checkpoints as the evaluator sees them: a policy in the loop, and an error on the fixed held-out set."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from embodichain.contracts import ACTION_DIM, ARMS, Batch, UnifiedAction
from embodichain.encoders.text import TextEncoder
from envs import PandaKinematics
from learner.batch import prepare_batch
from learner.checkpoint import load_model
from learner.heldout import heldout_error
from learner.policy import SyncPolicy
from learner.train_step import Model

HELDOUT_NOISE_SEED = 20_000
IK_ITERATIONS = 30


class ModelPolicy:
    """A model behind the evaluator's `Policy` protocol, one episode at a time.

    A model that predicts tool poses (`control: eef`) gets its joint targets from inverse kinematics here.

    Args:
        model: in evaluation mode.
        replan: control steps executed per chunk.
    """

    def __init__(self, model: Model, *, replan: int) -> None:
        self.replan = replan
        self.encoder_id = model.data.encoder_id
        self._policy = SyncPolicy(model)
        self._text = TextEncoder()
        self._kinematics = PandaKinematics() if model.data.control == "eef" else None

    def reset(self, instruction: str) -> None:
        """See `Policy.reset`."""
        self._policy.reset(self._text.encode([instruction]), np.ones(ACTION_DIM, dtype=bool))

    def step(self, tokens: np.ndarray, token_mask: np.ndarray, proprio: np.ndarray) -> np.ndarray:
        """See `Policy.step`."""
        chunk = self._policy.step(tokens[None], token_mask, proprio[None])[0]
        if self._kinematics is not None:
            fill_joint_targets(chunk, proprio, self._kinematics, self.replan)
        return chunk


def fill_joint_targets(chunk: np.ndarray, proprio: np.ndarray, kinematics: PandaKinematics, steps: int) -> None:
    """Write the joint targets of the first `steps` tool poses into `chunk` f32[N, A], in place.

    A pose out of reach keeps the joint target before it; the first one starts from the measured joints. Non-finite
    poses stay non-finite, for the caller to refuse.
    """
    for arm in range(len(ARMS)):
        joints = proprio[UnifiedAction.joints(arm)].astype(np.float64)
        for t in range(min(steps, len(chunk))):
            pose = chunk[t, UnifiedAction.eef(arm)].astype(np.float64)
            solved = kinematics.inverse(pose, joints, iterations=IK_ITERATIONS) if np.isfinite(pose).all() else None
            joints = joints if solved is None else solved
            chunk[t, UnifiedAction.joints(arm)] = joints


def load_policy(checkpoint: str, *, replan: int) -> ModelPolicy:
    """The policy of a checkpoint. Raises `ValueError` for a folder that is no whole checkpoint."""
    return ModelPolicy(load_model(checkpoint), replan=replan)


def checkpoint_heldout_error(checkpoint: str, batch: Batch) -> dict[str, Any]:
    """Errors of a checkpoint on held-out windows; see `learner.heldout`. Values that do not exist are left out."""
    model = load_model(checkpoint)
    rng = torch.Generator().manual_seed(HELDOUT_NOISE_SEED)
    error = heldout_error(model, prepare_batch(batch, TextEncoder().encode(batch.instruction)), rng)
    return {name: value for name, value in asdict(error).items() if isinstance(value, str) or math.isfinite(value)}
