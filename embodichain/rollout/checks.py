"""What physics must confirm of an episode besides success: each check has a name, and a limit with its reason."""

from __future__ import annotations

import numpy as np

from embodichain.contracts import ARMS, Episode
from envs import ARM_DOF
from tasks.session import TaskSession

# m. Gripped and pushed objects yield: in 400 expert episodes of ten tasks the deepest contact of an accepted one was
# 3.6 mm (95 % stayed below 2.6 mm), all between a finger and an object; nothing else went beyond 1 mm.
MAX_PENETRATION = 0.005
MAX_OBJECT_SPEED = 5.0  # m/s: a fall from a lifted hand to the floor reaches 4.5; experts stay below 1
MAX_OBJECT_DISTANCE = 3.0  # m, from the middle of the table
MAX_JOINT_SPEED = 5.2  # rad/s, of an arm: twice what the Panda's fastest joint may do; experts stay below 1.7
_OBJECT_STATE = 13  # entries of `sim_state` per object: pose 7, linear and angular velocity 3 each


class PhysicsChecks:
    """Watches one rollout, step by step, for what only the simulator can tell."""

    def __init__(self, session: TaskSession) -> None:
        self._session = session
        self._deepest, self._arms_touched, self._in_limits = 0.0, False, True

    def update(self) -> None:
        """Look at the world after a control step; the contacts are those that the task's judge has read."""
        world = self._session.world
        contacts = world.contacts()
        self._deepest = max(self._deepest, contacts.penetration, world.spawn_penetration or 0.0)
        self._arms_touched = self._arms_touched or contacts.arms
        self._in_limits = self._in_limits and self._session.limits_ok()

    def failed(self, episode: Episode) -> tuple[str, ...]:
        """Every check that `episode` does not pass, by name; none means that it may enter a replay."""
        arrays = (episode.action, episode.proprio, episode.sim_state, episode.tokens)
        finite = all(bool(np.isfinite(array).all()) for array in arrays if array is not None)
        failed = {
            "no_success": not episode.success,
            "not_finite": not finite,
            "joint_limit": not self._in_limits,
            "penetration": self._deepest > MAX_PENETRATION,
            "arm_contact": self._arms_touched,
            "exploded": exploded(episode.sim_state),
        }
        return tuple(name for name, bad in failed.items() if bad)


def exploded(sim_state: np.ndarray) -> bool:
    """Whether any object or arm left sane speeds, or any object the room, in states f32[T, S] of a world.

    NaN is nobody's explosion here: it is `not_finite`.
    """
    arms = len(ARMS) * (ARM_DOF + 2)  # seven joints and two fingers each: positions, then velocities
    objects = sim_state[:, : -2 * arms].reshape(len(sim_state), -1, _OBJECT_STATE)
    joints = sim_state[:, -arms:].reshape(len(sim_state), len(ARMS), -1)[..., :ARM_DOF]
    far = np.linalg.norm(objects[..., :3], axis=-1) > MAX_OBJECT_DISTANCE
    fast = np.linalg.norm(objects[..., 7:10], axis=-1) > MAX_OBJECT_SPEED
    return bool(far.any() or fast.any() or (np.abs(joints) > MAX_JOINT_SPEED).any())
