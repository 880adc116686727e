"""The state encoder: shapes, frames, masks and its errors."""

import numpy as np
import pytest

from embodichain.contracts import Observation
from embodichain.encoders import StateEncoder

IDENTITY = [1.0, 0.0, 0.0, 0.0]
HALF_TURN_Z = [0.0, 0.0, 0.0, 1.0]


def observation(objects: int = 1) -> Observation:
    return Observation(
        proprio=np.linspace(0, 1, 30, dtype=np.float32),
        object_pose=np.array([[0.1, 0.2, 0.3, *IDENTITY]] * objects, dtype=np.float32).reshape(-1, 7),
        object_size=np.full((objects, 3), 0.02, dtype=np.float32),
        object_grasp=np.full((objects, 2, 3), (0.1, 0.2, 0.31), dtype=np.float32),
        goal_pose=np.array([[0.4, 0.0, 0.0, *HALF_TURN_Z]], dtype=np.float32),
        goal_size=np.full((1, 3), 0.03, dtype=np.float32),
        tool_pose=np.array([[0.1, 0.0, 0.3, *HALF_TURN_Z], [0.0, 0.0, 0.0, *IDENTITY]], dtype=np.float32),
    )


def test_shape_dtype_and_world_pose():
    tokens = StateEncoder().encode(observation())
    assert tokens.shape == (4, 53)
    assert tokens.dtype == np.float32
    np.testing.assert_allclose(tokens[0, 3:6], [0.1, 0.2, 0.3], atol=1e-6)


def test_object_in_the_left_gripper_frame_is_rotated_and_translated():
    tokens = StateEncoder().encode(observation())
    # the left tool stands 0.2 m behind the object in y and is turned by 180 degrees about z
    np.testing.assert_allclose(tokens[0, 12:15], [0.0, -0.2, 0.0], atol=1e-6)
    np.testing.assert_allclose(tokens[0, 15:18], [-1.0, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(tokens[0, 47:50], np.tanh(np.array([0.0, -0.2, 0.01]) / 0.05), atol=1e-5)
    np.testing.assert_allclose(tokens[0, 41:44], [0.0, -0.2, 0.01], atol=1e-6)  # where it can be held
    # a gripper in its own frame is the identity pose
    np.testing.assert_allclose(tokens[2, 12:21], [0, 0, 0, 1, 0, 0, 0, 1, 0], atol=1e-6)


def test_an_empty_slot_is_masked_and_zero():
    encoder = StateEncoder(max_objects=2)
    mask = encoder.token_mask(observation())
    assert mask.tolist() == [True, False, True, True, True]
    assert not encoder.encode(observation())[1].any()


def test_too_many_objects_is_an_error_that_counts_them():
    with pytest.raises(ValueError, match="2 objects"):
        StateEncoder().encode(observation(objects=2))
