"""Who touches whom: one pass over the physics contacts of a step, kept as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sapien import physx

from envs.build import RigidBody
from envs.panda import Arm


@dataclass(frozen=True, kw_only=True)
class ContactSummary:
    """The contacts of one physics step.

    Attributes:
        fingers: bool[O, A, 2], whether finger f of arm a presses on object o.
        arms: whether any link of one arm presses on a link of the other.
        penetration: m, how deep any two bodies lie inside one another; 0 where none do.
    """

    fingers: np.ndarray
    arms: bool
    penetration: float


class ContactReader:
    """Reads the contacts of one built scene; knows which body is an arm's, a finger's or an object's."""

    def __init__(self, arms: Sequence[Arm], bodies: Sequence[RigidBody]) -> None:
        self._arm = {link: a for a, arm in enumerate(arms) for link in arm.articulation.links}
        self._finger = {finger: (a, f) for a, arm in enumerate(arms) for f, finger in enumerate(arm.fingers)}
        self._object = {body: i for i, body in enumerate(bodies)}
        self._shape = (len(bodies), len(arms), 2)

    def read(self, contacts: Sequence[physx.PhysxContact]) -> ContactSummary:
        """Summarise the contacts that the physics reports for its last step."""
        fingers = np.zeros(self._shape, dtype=bool)
        arms, deepest = False, 0.0
        for contact in contacts:
            points = contact.points
            deepest = min([deepest, *(point.separation for point in points)])
            first, second = contact.bodies
            one, other = self._arm.get(first), self._arm.get(second)
            if one is None and other is None:
                continue
            if one is not None and other is not None:
                arms = arms or (one != other and _presses(points))
                continue
            link, body = (first, second) if other is None else (second, first)
            finger, index = self._finger.get(link), self._object.get(body)
            if finger is not None and index is not None and not fingers[index, *finger]:
                fingers[index, *finger] = _presses(points)
        return ContactSummary(fingers=fingers, arms=arms, penetration=abs(deepest))


def _presses(points: Sequence[physx.PhysxContactPoint]) -> bool:
    return any(point.impulse.any() for point in points)
