"""Between absolute unified actions and the codes that models predict.

A code is relative to the present: joint targets minus the joints measured at the chunk's first step, or tool poses in
the frame that the tool had then; the gripper opening as it is. It covers one half of the unified vector only; the other
dims are zero in a decoded action. Learning in relative codes rather than absolute targets decides success more than a
model's size does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embodichain.contracts import ACTION_DIM, ARMS, UnifiedAction


class JointCodec(nn.Module):
    """`control: joint`: codes of 16 dims, `[7 joint deltas (rad) | gripper in [0, 1]]` per arm, left first."""

    unit = "rad"
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
        _check(action, proprio)
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

    def error(self, action: Tensor, expert: Tensor) -> Tensor:
        """Absolute joint errors, rad, [..., n, 14]; both actions are absolute."""
        joints = self.index[self.relative]
        return (action[..., joints] - expert[..., joints]).abs()

    def error_valid(self, action_valid: Tensor) -> Tensor:
        """bool[..., A] of an embodiment -> bool[..., 14], for the entries of `error`."""
        return action_valid[..., self.index[self.relative]]


class EefCodec(nn.Module):
    """`control: eef`: codes of 14 dims, `[position code | rotation vector (rad) | gripper]` per arm, left first.

    Position and rotation are those of the target in the frame that the tool has at the chunk's first step, so that
    "a hand's width ahead" is the same code anywhere in the workspace. The position code of p metres is
    asinh(p / `fine`) per axis: linear for the last centimetres before a grasp, logarithmic beyond, so that an error
    counts relative to the distance still to go. Whoever executes a decoded action needs inverse kinematics: its joint
    dims are zero.
    """

    unit = "m"
    fine = 0.02  # m
    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.per_arm = 7
        self.dim = self.per_arm * len(ARMS)
        starts = [UnifiedAction.eef(arm).start for arm in range(len(ARMS))]
        positions = [start + axis for start in starts for axis in range(3)]
        self.register_buffer("positions", torch.tensor(positions), persistent=False)

    def encode(self, action: Tensor, proprio: Tensor) -> Tensor:
        """Absolute actions [..., n, A] and the proprioception they start from [..., P=A] -> codes [..., n, 14]."""
        _check(action, proprio)
        parts = []
        for arm in range(len(ARMS)):
            target, here = action[..., UnifiedAction.eef(arm)], proprio[..., None, UnifiedAction.eef(arm)]
            back = _conjugate(_unit(here[..., 3:]))
            parts += [
                torch.asinh(_rotate(back, target[..., :3] - here[..., :3]) / self.fine),
                _rotation_vector(_multiply(back, _unit(target[..., 3:]))),
                action[..., UnifiedAction.gripper(arm)],
            ]
        return torch.cat(parts, dim=-1)

    def decode(self, code: Tensor, proprio: Tensor) -> Tensor:
        """Inverse of `encode`, with `qw >= 0`; joint dims of the result are zero.

        Raises:
            ValueError: if the code has not 14 dims.
        """
        if code.shape[-1] != self.dim:
            raise ValueError(f"code: last dim {code.shape[-1]}, expected {self.dim}")
        action = code.new_zeros((*code.shape[:-1], ACTION_DIM))
        for arm in range(len(ARMS)):
            part = code[..., self.per_arm * arm : self.per_arm * (arm + 1)]
            here = proprio[..., None, UnifiedAction.eef(arm)]
            there = _unit(here[..., 3:]).expand(*part.shape[:-1], 4)
            turned = _multiply(there, _from_rotation_vector(part[..., 3:6]))
            turned = torch.where(turned[..., :1] < 0, -turned, turned)
            position = here[..., :3] + _rotate(there, torch.sinh(part[..., :3]) * self.fine)
            action[..., UnifiedAction.eef(arm)] = torch.cat((position, turned), dim=-1)
            action[..., UnifiedAction.gripper(arm)] = part[..., 6:]
        return action

    def valid(self, action_valid: Tensor) -> Tensor:
        """bool[..., A] of an embodiment -> bool[..., 14] of its code: an arm without a pose has no code."""
        parts = []
        for arm in range(len(ARMS)):
            pose = action_valid[..., UnifiedAction.eef(arm)].all(dim=-1, keepdim=True)
            parts += [pose.expand(*pose.shape[:-1], 6), action_valid[..., UnifiedAction.gripper(arm)]]
        return torch.cat(parts, dim=-1)

    def error(self, action: Tensor, expert: Tensor) -> Tensor:
        """Absolute tool position errors, m, [..., n, 6]; both actions are absolute."""
        return (action[..., self.positions] - expert[..., self.positions]).abs()

    def error_valid(self, action_valid: Tensor) -> Tensor:
        """bool[..., A] of an embodiment -> bool[..., 6], for the entries of `error`."""
        return action_valid[..., self.positions]


ActionCodec = JointCodec | EefCodec


def build_codec(control: str) -> ActionCodec:
    """The codec of `control`. Raises `ValueError` for an unknown one."""
    codecs: dict[str, type[JointCodec] | type[EefCodec]] = {"joint": JointCodec, "eef": EefCodec}
    if control not in codecs:
        raise ValueError(f"data.control={control!r}: expected one of {', '.join(codecs)}")
    return codecs[control]()


def _check(action: Tensor, proprio: Tensor) -> None:
    if action.shape[-1] != ACTION_DIM or proprio.shape[-1] != ACTION_DIM:
        raise ValueError(
            f"action [..., {action.shape[-1]}], proprio [..., {proprio.shape[-1]}]: expected {ACTION_DIM} dims each"
        )


# Quaternions are wxyz, of unit length unless said otherwise; [..., 4], broadcasting.


def _unit(q: Tensor) -> Tensor:
    """A zero quaternion (a masked entry) becomes the identity."""
    length = q.norm(dim=-1, keepdim=True)
    identity = torch.zeros_like(q)
    identity[..., 0] = 1.0
    return torch.where(length > 1e-6, q / length.clamp_min(1e-6), identity)


def _conjugate(q: Tensor) -> Tensor:
    return q * q.new_tensor([1.0, -1.0, -1.0, -1.0])


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    av, bv = torch.broadcast_tensors(av, bv)
    return torch.cat(
        (aw * bw - (av * bv).sum(-1, keepdim=True), aw * bv + bw * av + torch.linalg.cross(av, bv)), dim=-1
    )


def _rotate(q: Tensor, v: Tensor) -> Tensor:
    """Rotate vectors [..., 3] by q."""
    axis, v = torch.broadcast_tensors(q[..., 1:], v)
    twice = 2.0 * torch.linalg.cross(axis, v)
    return v + q[..., :1] * twice + torch.linalg.cross(axis, twice)


def _rotation_vector(q: Tensor) -> Tensor:
    """Axis times angle, the shorter way round, radians; [..., 3]."""
    q = torch.where(q[..., :1] < 0, -q, q)
    sine = q[..., 1:].norm(dim=-1, keepdim=True)
    angle = 2.0 * torch.atan2(sine, q[..., :1])
    return q[..., 1:] * torch.where(sine > 1e-6, angle / sine.clamp_min(1e-6), 2.0)


def _from_rotation_vector(r: Tensor) -> Tensor:
    angle = r.norm(dim=-1, keepdim=True)
    scale = torch.where(angle > 1e-6, torch.sin(angle / 2) / angle.clamp_min(1e-6), 0.5)
    return torch.cat((torch.cos(angle / 2), r * scale), dim=-1)
