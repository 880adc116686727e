"""Checkpoints as the evaluator sees them: a policy in the loop, and an error on the fixed held-out set."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from embodichain.contracts import ACTION_DIM, ARMS, Batch, PolicyInput, UnifiedAction
from embodichain.encoders.text import TextEncoder
from envs import CONTROL_HZ, PandaDrive, PandaKinematics
from learner.batch import prepare_batch
from learner.checkpoint import load_model
from learner.heldout import HELDOUT_NOISE_SEED, heldout_error
from learner.runtime import PolicyRuntime, RuntimeConfig
from learner.runtime.policy import Substitute
from learner.train_step import Model

IK_ITERATIONS = 30
# The share of its way to the target that a joint goes in a control step. The drives are overdamped, so that inertia
# hardly counts: damping dx/dt = stiffness (target - x). A scene's own gains, which domains vary, are not known here.
FOLLOWS = 1.0 - math.exp(-PandaDrive().stiffness / PandaDrive().damping / CONTROL_HZ)
SAME_OPENING = 0.1  # of a gripper: targets nearer than that mean the same to it


class ModelPolicy:
    """A model behind the evaluator's `Policy` protocol, one episode at a time.

    A model that predicts tool poses (`control: eef`) gets its joint targets from inverse kinematics here.

    Args:
        model: in evaluation mode.
        replan: control steps executed per chunk.
        runtime: mode and settings.
        whole_chunks: give joint targets for all of a chunk, not for the first `replan` actions alone, beyond which only
            mode `naive_async` plays it.
        text: embeds instructions; shared where there are many policies.
        substitute: see `PolicyRuntime`.
        device: where the model is.

    Raises:
        ValueError: a mode that this model cannot run in, or another text encoder than it was trained on.
    """

    needs_rgb = False

    def __init__(
        self,
        model: Model,
        *,
        replan: int,
        runtime: RuntimeConfig | None = None,
        whole_chunks: bool = False,
        text: TextEncoder | None = None,
        substitute: Substitute | None = None,
        device: str = "cpu",
    ) -> None:
        self.replan = replan
        self.encoder_id = model.data.encoder_id
        self.runtime = PolicyRuntime(model, runtime, substitute=substitute, device=device)
        self.work = self.runtime.work
        whole = whole_chunks or self.runtime.config.mode == "naive_async"
        self._reach = model.data.chunk if whole else replan
        self._text = text or TextEncoder()
        if model.data.text_encoder_id not in ("", self._text.id):
            raise ValueError(
                f"the policy was trained on text encoder {model.data.text_encoder_id!r}, this one is {self._text.id!r}"
            )
        self._kinematics, self._poses = PandaKinematics(), model.data.control == "eef"
        self._chunk = np.zeros((0, ACTION_DIM), dtype=np.float32)
        self._proprio = self._last = np.zeros(ACTION_DIM, dtype=np.float32)

    def reset(self, instruction: str) -> None:
        """See `Policy.reset`."""
        self._chunk = self._chunk[:0]
        self.runtime.reset(self._text.encode([instruction]), np.ones(ACTION_DIM, dtype=bool))

    def step(self, seen: PolicyInput) -> np.ndarray:
        """See `Policy.step`."""
        if seen.tokens is None or seen.token_mask is None:
            raise ValueError(f"tokens: none given, expected those of encoder {self.encoder_id!r}")
        proprio = seen.observation.proprio
        self._proprio, self._last = proprio, seen.executed[-1] if len(seen.executed) else proprio
        chunk = self.runtime.step(seen.tokens[None], seen.token_mask, proprio[None], seen.executed[None])[0]
        if self._poses:
            fill_joint_targets(chunk, proprio, self._kinematics, self._reach)
        self._chunk = chunk
        return chunk

    def speculate(self) -> None:
        """See `Speculator.speculate`. Raises `ValueError` before the first step of an episode."""
        planned = self._chunk[: self.replan]
        if not len(planned):
            raise ValueError("speculate: no chunk is being executed, expected a step before it")
        posture = expected_posture(self._proprio, self._last, planned, self._kinematics)
        self.runtime.speculate(planned[None], posture[None])


def expected_posture(
    proprio: np.ndarray, last: np.ndarray, planned: np.ndarray, kinematics: PandaKinematics
) -> np.ndarray:
    """Proprioception f32[A] expected when `planned` f32[n, A] has been executed.

    Joints follow their targets as their drives let them. A gripper that is asked for what it was asked for before stays
    as far from it as it is: fingers that are told to close stand at the width of what they hold, and taking them for
    closed makes a policy believe that it holds nothing.

    Args:
        proprio: f32[A], measured before.
        last: f32[A], the target then; `proprio` if there was none.
        planned: the targets from there on.
        kinematics: of the arms.
    """
    followed, target = proprio, planned[-1]
    for each in planned:
        followed = followed + FOLLOWS * (each - followed)
    posture = np.zeros_like(target)
    for arm in range(len(ARMS)):
        joints, gripper = UnifiedAction.joints(arm), UnifiedAction.gripper(arm)
        posture[joints] = followed[joints]
        goes_on = np.abs(target - last)[gripper] < SAME_OPENING
        opening = np.where(goes_on, proprio[gripper] + target[gripper] - last[gripper], followed[gripper])
        posture[gripper] = np.clip(opening, 0.0, 1.0)
        posture[UnifiedAction.eef(arm)] = kinematics.forward(posture[joints])
    return posture


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


def load_policy(checkpoint: str, *, replan: int, runtime: RuntimeConfig | None = None) -> ModelPolicy:
    """The policy of a checkpoint.

    Raises `ValueError` for a folder that is no whole checkpoint, and for a mode that its model cannot run in.
    """
    return ModelPolicy(load_model(checkpoint), replan=replan, runtime=runtime)


def checkpoint_heldout_error(checkpoint: str, batch: Batch) -> dict[str, Any]:
    """Errors of a checkpoint on held-out windows; see `HeldoutError.record`."""
    model = load_model(checkpoint)
    rng = torch.Generator().manual_seed(HELDOUT_NOISE_SEED)
    return heldout_error(model, prepare_batch(batch, TextEncoder().encode(batch.instruction)), rng).record()
