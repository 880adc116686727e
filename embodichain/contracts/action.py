"""The unified dual-arm vector: where each number of an action or a proprioception lives.

Per arm `[x y z, qw qx qy qz | q1..q7 | gripper]`, left arm first, 30 numbers in all (DexWorldModel,
arXiv 2604.16484, section "Action space"). Metres, radians, gripper in [0, 1] with 1 = open. The
end-effector pose is expressed in that arm's base frame, with `qw >= 0`.
"""

from __future__ import annotations

import numpy as np

ARMS: tuple[str, str] = ("left", "right")
ARM_DIM = 15
ACTION_DIM = ARM_DIM * len(ARMS)


class UnifiedAction:
    """Index arithmetic on the unified vector; it holds no data.

    `eef(arm)`, `joints(arm)`, `gripper(arm)` are slices of the last axis; `arm` is 0 (left) or 1.
    """

    @staticmethod
    def eef(arm: int) -> slice:
        """Position (3) and quaternion wxyz (4) of the arm's tool point in its base frame."""
        return slice(ARM_DIM * arm, ARM_DIM * arm + 7)

    @staticmethod
    def joints(arm: int) -> slice:
        """The seven joint angles, radians."""
        return slice(ARM_DIM * arm + 7, ARM_DIM * arm + 14)

    @staticmethod
    def gripper(arm: int) -> slice:
        """The gripper opening in [0, 1], 1 = open; a slice of length 1."""
        return slice(ARM_DIM * arm + 14, ARM_DIM * arm + 15)

    @staticmethod
    def joint_control_mask() -> np.ndarray:
        """bool[A]: the dims that `control = joint` executes (joints and grippers of both arms)."""
        mask = np.zeros(ACTION_DIM, dtype=bool)
        for arm in range(len(ARMS)):
            mask[UnifiedAction.joints(arm)] = True
            mask[UnifiedAction.gripper(arm)] = True
        return mask
