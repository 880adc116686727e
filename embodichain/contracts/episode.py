"""An episode, what a policy sees at one step of it, and physics' verdict on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from embodichain.contracts.action import ACTION_DIM
from embodichain.contracts.recipe import Recipe

SCHEMA_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What is known at one control step, before encoding.

    Attributes:
        proprio: f32[P=30], measured, in the unified layout (`contracts.action`).
        object_pose: f32[O, 7], world frame, position (m) and quaternion wxyz; privileged.
        object_size: f32[O, 3], half extents of each object's box, metres.
        object_grasp: f32[O, 2, 3], world frame, where each object offers itself to the left and to the right
            gripper, metres; privileged.
        goal_pose: f32[G, 7], world frame.
        goal_size: f32[G, 3], tolerances or half extents of each goal, metres.
        tool_pose: f32[2, 7], world frame, the tool point of each arm.
        rgb: u8[V, H, W, 3], or None where no frame was rendered at this step.
    """

    proprio: np.ndarray
    object_pose: np.ndarray
    object_size: np.ndarray
    object_grasp: np.ndarray
    goal_pose: np.ndarray
    goal_size: np.ndarray
    tool_pose: np.ndarray
    rgb: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One finished rollout; arrays are time first. Observation t precedes action t.

    Attributes:
        recipe: what it was made from.
        instruction: the language instruction.
        action: f32[T, A], absolute targets in the unified layout.
        action_valid: bool[A], which action dims mean anything for this embodiment.
        proprio: f32[T+1, P].
        sim_state: f32[T+1, S], the simulator state that exact replay is checked against.
        segment_id: i16[T], which of the task's segments each action belongs to; one past them: a recovery.
        control_hz: control frequency.
        success: the task's predicate held, at rest, at the end.
        label_valid: bool[T], which actions are what should be done; the others are what was done by mistake, context
            that is never imitated. None: all of them.
        tokens: [T+1, L, C] f32 (`state`) or [F, L, C] f16 (image tokens, frame j = step j*tau).
        token_mask: bool[L], which tokens exist.
        tau: control steps between token frames: 1 for `state` tokens.
        encoder_id: name and weights hash of the encoder that made `tokens`.
        rgb: u8[F, V, H, W, 3] or None.
        draws: every randomisation draw of the scene, name -> number or list, as JSON-able data.
    """

    recipe: Recipe
    instruction: str
    action: np.ndarray
    action_valid: np.ndarray
    proprio: np.ndarray
    sim_state: np.ndarray
    segment_id: np.ndarray
    control_hz: float
    success: bool
    label_valid: np.ndarray | None = None
    tokens: np.ndarray | None = None
    token_mask: np.ndarray | None = None
    tau: int = 1
    encoder_id: str = ""
    rgb: np.ndarray | None = None
    draws: dict[str, object] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def pairs(self) -> int:
        """T, the number of state-action pairs."""
        return int(self.action.shape[0])

    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        arrays = (self.action, self.proprio, self.sim_state, self.segment_id, self.tokens, self.rgb)
        return sum(a.nbytes for a in arrays if a is not None)

    def check(self) -> None:
        """Raise `ValueError`, naming the field, unless shapes and dtypes are as documented."""
        t = self.pairs
        expected: dict[str, tuple[np.ndarray, tuple[int | None, ...], type]] = {
            "action": (self.action, (t, ACTION_DIM), np.float32),
            "action_valid": (self.action_valid, (ACTION_DIM,), np.bool_),
            "proprio": (self.proprio, (t + 1, None), np.float32),
            "sim_state": (self.sim_state, (t + 1, None), np.float32),
            "segment_id": (self.segment_id, (t,), np.int16),
        }
        if self.label_valid is not None:
            expected["label_valid"] = (self.label_valid, (t,), np.bool_)
        if self.tokens is not None:
            frames = t // self.tau + 1
            token_type = np.float32 if self.tau == 1 else np.float16
            expected["tokens"] = (self.tokens, (frames, None, None), token_type)
            if self.token_mask is None:
                raise ValueError(f"episode.token_mask: none, expected bool[{self.tokens.shape[1]}]")
            expected["token_mask"] = (self.token_mask, tuple(self.tokens.shape[1:2]), np.bool_)
        for name, (array, shape, dtype) in expected.items():
            wrong_shape = len(array.shape) != len(shape) or any(
                want is not None and have != want for have, want in zip(array.shape, shape, strict=True)
            )
            if wrong_shape or array.dtype != dtype:
                raise ValueError(
                    f"episode.{name}: {array.dtype}{list(array.shape)}, expected {np.dtype(dtype)}{list(shape)}"
                )
        if t == 0:
            raise ValueError("episode.action: no control steps, expected at least one")
        if self.label_valid is not None and not self.label_valid.any():
            raise ValueError("episode.label_valid: no step is to be imitated, expected at least one")
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"episode.schema_version={self.schema_version}, expected {SCHEMA_VERSION}")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Physics' word on a rollout: only an accepted episode becomes sampleable.

    `reasons` names every check that failed (`no_success`, `not_finite`, `joint_limit`, ...).
    """

    accepted: bool
    reasons: tuple[str, ...] = ()
