"""Checkpoints as the evaluator sees them: a policy in the loop, and an error on the fixed held-out set."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from embodichain.contracts import Batch, UnifiedAction
from embodichain.encoders.text import TextEncoder
from learner.batch import prepare_batch
from learner.checkpoint import load_model
from learner.heldout import heldout_error
from learner.policy import SyncPolicy

HELDOUT_NOISE_SEED = 20_000


class CheckpointPolicy:
    """A checkpoint's averaged model behind the evaluator's `Policy` protocol, one episode at a time.

    Raises `ValueError` for a folder that is no whole checkpoint.
    """

    def __init__(self, checkpoint: str, *, replan: int) -> None:
        model = load_model(Path(checkpoint))
        self.replan = replan
        self.encoder_id = model.data.encoder_id
        self._policy = SyncPolicy(model)
        self._text = TextEncoder()

    def reset(self, instruction: str) -> None:
        """See `Policy.reset`."""
        self._policy.reset(self._text.encode([instruction]), UnifiedAction.joint_control_mask())

    def step(self, tokens: np.ndarray, token_mask: np.ndarray, proprio: np.ndarray) -> np.ndarray:
        """See `Policy.step`."""
        return self._policy.step(tokens[None], token_mask, proprio[None])[0]


def checkpoint_heldout_error(checkpoint: str, batch: Batch) -> dict[str, float]:
    """Errors of a checkpoint on held-out windows; see `learner.heldout`. Values that do not exist are left out."""
    model = load_model(Path(checkpoint))
    rng = torch.Generator().manual_seed(HELDOUT_NOISE_SEED)
    error = heldout_error(model, prepare_batch(batch, TextEncoder().encode(batch.instruction)), rng)
    values = {
        "action": error.action,
        "input_blind": error.input_blind,
        "frame": error.frame,
        "frame_copy": error.frame_copy,
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}
