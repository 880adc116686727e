"""The `state` encoder: pose tokens from the simulator's own state (privileged; for laptops and sweeps).

One token per object, goal and arm, each with its pose in the world frame and in both grippers' frames.
A probe showed that poses relative to the gripper decide how fast a policy learns, more than its size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodichain.contracts import ARMS, Observation, UnifiedAction
from embodichain.encoders.base import FrameByFrame

_POSE = 9  # position (3, m) and the first two columns of the rotation matrix (6)
_KIND = 3  # one-hot: object, goal, arm
_FINE = 0.05  # m, the scale of the fine gripper-frame positions
_SIZE = _KIND + 3 * _POSE  # where the half extents begin; then gripper opening, joint angles
_CONTACT = _SIZE + 3 + 1 + 7  # where the contact points begin, three numbers per arm
_FINE_CONTACT = _CONTACT + 6
CHANNELS = _FINE_CONTACT + 6  # 53


@dataclass(frozen=True, kw_only=True)
class Places:
    """What tokens say about where things are; L tokens in the encoder's order: objects, goals, left arm, right arm.

    Attributes:
        position: f32[..., L, 3], world frame, m.
        forward: f32[..., L, 3], direction of each thing's own x axis; a unit vector, but for imagined tokens.
        half_size: f32[..., L, 3], m; zero for arms.
        opening: f32[..., L], of grippers, 1 is open; zero for objects and goals.
    """

    position: np.ndarray
    forward: np.ndarray
    half_size: np.ndarray
    opening: np.ndarray


def places_of(tokens: np.ndarray) -> Places:
    """Read f32[..., L, 53] back. Raises `ValueError` for another number of channels."""
    if tokens.shape[-1] != CHANNELS:
        raise ValueError(f"tokens: {list(tokens.shape)}, expected [..., L, {CHANNELS}]")
    return Places(
        position=tokens[..., _KIND : _KIND + 3],
        forward=tokens[..., _KIND + 3 : _KIND + 6],
        half_size=tokens[..., _SIZE : _SIZE + 3],
        opening=tokens[..., _SIZE + 3],
    )


class StateEncoder(FrameByFrame):
    """Pose tokens, f32[L, 53] with L = objects + goals + 2 arms.

    Channels: kind (3) | pose in the world (9) | in the left gripper's frame (9) | in the right
    gripper's frame (9) | half extents, m (3) | gripper opening (1) | joint angles, rad (7) | contact points
    in the left and the right gripper's frame, m (6) | the same as tanh(p / 5 cm) (6): millimetres matter
    where a gripper closes, and metres where it travels. An object's contact point is the grasp point that it
    offers to that arm (`Observation.object_grasp`), that of goals and tools their own position. Opening and
    joints are zero for objects and goals. Token order: objects, goals, left arm, right arm.
    """

    needs_rgb = False
    channels = CHANNELS
    dtype = np.dtype(np.float32)

    def __init__(self, *, max_objects: int = 1, max_goals: int = 1) -> None:
        """Raises `ValueError` if a slot count is negative."""
        if max_objects < 0 or max_goals < 0:
            raise ValueError(f"encoder slots objects={max_objects}, goals={max_goals}: expected >= 0")
        self.max_objects = max_objects
        self.max_goals = max_goals
        self.max_tokens = max_objects + max_goals + len(ARMS)
        self.id = f"state-v3-o{max_objects}g{max_goals}"

    def encode(self, observation: Observation) -> np.ndarray:
        """f32[L, 53]. Raises `ValueError` if the scene has more objects or goals than slots."""
        for name, have, slots in (
            ("objects", len(observation.object_pose), self.max_objects),
            ("goals", len(observation.goal_pose), self.max_goals),
        ):
            if have > slots:
                raise ValueError(f"the scene has {have} {name}, the state encoder has slots for {slots}")
        poses = np.concatenate([observation.object_pose, observation.goal_pose, observation.tool_pose])
        position, rotation = poses[:, :3].astype(np.float64), _rotation_matrices(poses[:, 3:])
        n_objects, n_goals = len(observation.object_pose), len(observation.goal_pose)
        rows = np.concatenate(
            [
                np.arange(n_objects),
                self.max_objects + np.arange(n_goals),
                self.max_objects + self.max_goals + np.arange(len(ARMS)),
            ]
        )
        tokens = np.zeros((self.max_tokens, CHANNELS), dtype=np.float32)
        kind = np.repeat([0, 1, 2], [n_objects, n_goals, len(ARMS)])
        tokens[rows, kind] = 1.0
        tokens[rows, _KIND : _KIND + _POSE] = _pose_features(position, rotation)
        for arm in range(len(ARMS)):
            tool_position, tool_rotation = position[-2 + arm], rotation[-2 + arm]
            start = _KIND + _POSE * (1 + arm)
            relative = (position - tool_position) @ tool_rotation
            tokens[rows, start : start + _POSE] = _pose_features(relative, tool_rotation.T @ rotation)
            contact = position.copy()
            contact[:n_objects] = observation.object_grasp[:, arm]
            contact = (contact - tool_position) @ tool_rotation
            for begin, value in ((_CONTACT, contact), (_FINE_CONTACT, np.tanh(contact / _FINE))):
                tokens[rows, begin + 3 * arm : begin + 3 * (arm + 1)] = value
        tokens[rows[: n_objects + n_goals], _SIZE : _SIZE + 3] = np.concatenate(
            [observation.object_size, observation.goal_size]
        )
        for arm in range(len(ARMS)):
            row = rows[-2 + arm]
            tokens[row, _SIZE + 3 : _SIZE + 4] = observation.proprio[UnifiedAction.gripper(arm)]
            tokens[row, _SIZE + 4 : _CONTACT] = observation.proprio[UnifiedAction.joints(arm)]
        return tokens

    def token_mask(self, observation: Observation) -> np.ndarray:
        """bool[L]: True for the slots that this scene fills."""
        mask = np.zeros(self.max_tokens, dtype=bool)
        mask[: len(observation.object_pose)] = True
        mask[self.max_objects : self.max_objects + len(observation.goal_pose)] = True
        mask[self.max_objects + self.max_goals :] = True
        return mask


def _pose_features(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Position and the first two rotation columns, [n, 9]: continuous, unlike a quaternion."""
    return np.concatenate([position, rotation[:, :, 0], rotation[:, :, 1]], axis=1)


def _rotation_matrices(quaternion: np.ndarray) -> np.ndarray:
    """Unit quaternions wxyz [n, 4] -> [n, 3, 3] float64."""
    w, x, y, z = quaternion.astype(np.float64).T
    return np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], axis=-1),
            np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], axis=-1),
            np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], axis=-1),
        ],
        axis=1,
    )
