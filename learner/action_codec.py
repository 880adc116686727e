"""Between absolute unified actions and the codes that models predict.

A code is relative to the present: joint targets minus the joints measured at the chunk's first step, gripper opening
as it is. It covers the executed half of the unified vector only; the other dims are zero in a decoded action. Learning
in relative codes rather than absolute targets decides success more than a model's size does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embodichain.contracts import ACTION_DIM, ARMS, UnifiedAction


class JointCodec(nn.Module):
    """`control: joint`: codes of 16 dims, `[7 joint deltas (rad) | gripper in [0, 1]]` per arm, left first."""

    index: Tensor
    relative: Tensor

    def __init__(self) -> None:
        super().__init__()
        index: list[int] = []
        relative: list[bool] = []
        for arm in range(len(ARMS)):
            joints = range(ACTION_DIM)[UnifiedAction.joints(arm)]
            gripper = range(ACTION_DIM)[UnifiedAction.gripper(arm)]
            index += [*joints, *gripper]
            relative += [True] * len(joints) + [False] * len(gripper)
        self.dim = len(index)
        self.register_buffer("index", torch.tensor(index), persistent=False)
        self.register_buffer("relative", torch.tensor(relative), persistent=False)

    def _anchor(self, proprio: Tensor) -> Tensor:
        return (proprio[..., self.index] * self.relative).unsqueeze(-2)

    def encode(self, action: Tensor, proprio: Tensor) -> Tensor:
        """Absolute actions [..., n, A] and the proprioception they start from [..., P=A] -> codes [..., n, 16]."""
        self._check(action, proprio)
        return action[..., self.index] - self._anchor(proprio)

    def decode(self, code: Tensor, proprio: Tensor) -> Tensor:
        """Inverse of `encode`; end-effector dims of the result are zero.

        Raises:
            ValueError: if the code has not 16 dims.
        """
        if code.shape[-1] != self.dim:
            raise ValueError(f"code: last dim {code.shape[-1]}, expected {self.dim}")
        action = code.new_zeros((*code.shape[:-1], ACTION_DIM))
        action[..., self.index] = code + self._anchor(proprio)
        return action

    def valid(self, action_valid: Tensor) -> Tensor:
        """bool[..., A] of an embodiment -> bool[..., 16] of its code."""
        return action_valid[..., self.index]

    @property
    def joint_dims(self) -> Tensor:
        """bool[16]: which dims of a code are joint angles (radians)."""
        return self.relative

    @staticmethod
    def _check(action: Tensor, proprio: Tensor) -> None:
        if action.shape[-1] != ACTION_DIM or proprio.shape[-1] != ACTION_DIM:
            raise ValueError(
                f"action [..., {action.shape[-1]}], proprio [..., {proprio.shape[-1]}]: expected {ACTION_DIM} dims each"
            )
