"""The eef codec: exact round trips, and codes that do not depend on where in the workspace the arm is."""

import numpy as np
import pytest
import torch

from embodichain.contracts import ACTION_DIM, UnifiedAction
from learner.action_codec import EefCodec, JointCodec, build_codec


def random_unified(*shape: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=(*shape, ACTION_DIM))
    for arm in (0, 1):
        quaternion = vector[..., UnifiedAction.eef(arm)][..., 3:]
        quaternion /= np.linalg.norm(quaternion, axis=-1, keepdims=True)
        quaternion *= np.where(quaternion[..., :1] < 0, -1.0, 1.0)
        vector[..., UnifiedAction.eef(arm)][..., 3:] = quaternion
    return torch.from_numpy(vector)


def test_decode_inverts_encode_on_poses_and_grippers():
    codec, proprio, action = EefCodec(), random_unified(5, seed=1), random_unified(5, 9, seed=2)
    decoded = codec.decode(codec.encode(action, proprio), proprio)
    for arm in (0, 1):
        torch.testing.assert_close(decoded[..., UnifiedAction.eef(arm)], action[..., UnifiedAction.eef(arm)])
        torch.testing.assert_close(decoded[..., UnifiedAction.gripper(arm)], action[..., UnifiedAction.gripper(arm)])
        assert not decoded[..., UnifiedAction.joints(arm)].any()


def test_a_hands_width_ahead_is_the_same_code_wherever_the_tool_points():
    codec, proprio = EefCodec(), random_unified(6, seed=3)
    ahead = torch.zeros(6, 1, codec.dim, dtype=torch.float64)
    ahead[..., 2] = np.arcsinh(0.1 / codec.fine)
    target = codec.decode(ahead, proprio)
    pose, here = target[:, 0, UnifiedAction.eef(0)], proprio[:, UnifiedAction.eef(0)]
    torch.testing.assert_close((pose[:, :3] - here[:, :3]).norm(dim=-1), torch.full((6,), 0.1, dtype=torch.float64))
    torch.testing.assert_close(pose[:, 3:], here[:, 3:])
    assert (pose[0, :3] - here[0, :3]).dot(pose[1, :3] - here[1, :3]) < 0.0099  # different directions in the base frame


def test_a_known_turn_has_its_rotation_vector():
    codec = EefCodec()
    proprio = torch.zeros(1, ACTION_DIM)
    action = torch.zeros(1, 1, ACTION_DIM)
    for arm in (0, 1):
        proprio[:, UnifiedAction.eef(arm).start + 3] = 1.0
        action[..., UnifiedAction.eef(arm).start + 3] = 1.0
    half = 0.3 / 2
    action[..., 3:7] = torch.tensor([np.cos(half), 0.0, 0.0, np.sin(half)])
    torch.testing.assert_close(codec.encode(action, proprio)[0, 0, 3:6], torch.tensor([0.0, 0.0, 0.3]))


def test_a_position_error_counts_relative_to_the_distance_still_to_go():
    codec, proprio = EefCodec(), random_unified(1, seed=4)
    code = torch.zeros(1, 3, codec.dim, dtype=torch.float64)
    code[0, :, 0] = torch.asinh(torch.tensor([0.0, 0.05, 0.3], dtype=torch.float64) / codec.fine)
    moved = codec.decode(code + 0.05, proprio)[..., :3] - codec.decode(code, proprio)[..., :3]
    near, middle, far = moved.norm(dim=-1)[0].tolist()
    assert near < 0.002 < middle < far
    exact = codec.decode(code, proprio)
    assert codec.error(exact, exact).max() == 0.0
    assert codec.error_valid(torch.ones(30, dtype=torch.bool)).shape == (6,)


def test_masked_zero_vectors_stay_finite_and_an_arm_without_a_pose_is_invalid():
    codec = EefCodec()
    assert torch.isfinite(codec.encode(torch.zeros(2, 3, ACTION_DIM), torch.zeros(2, ACTION_DIM))).all()
    valid = codec.valid(torch.from_numpy(UnifiedAction.joint_control_mask()))
    assert valid.tolist() == ([False] * 6 + [True]) * 2


def test_the_registry_knows_both_and_names_the_unknown():
    assert isinstance(build_codec("joint"), JointCodec)
    assert isinstance(build_codec("eef"), EefCodec)
    with pytest.raises(ValueError, match="'torque'"):
        build_codec("torque")
