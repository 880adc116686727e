"""Does an execution still do what its plan assumes? Read from physics alone, never from what was injected.

* `empty_hand`: a hand that closed beside an object holds nothing: it missed, or lost what it held.
* `object_moved`: something lies elsewhere than the plan found it, and no hand had touched it.
* `not_done`: the plan is over and the task is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodichain.contracts import ARMS, UnifiedAction
from tasks.judge import holding
from tasks.mishaps import nearest_object
from tasks.session import TaskSession

EMPTY_OPENING = 0.05  # share of the full opening below which nothing can be between the fingers
BESIDE = 0.06  # m, from a closing hand to an object that it may be meant for
MOVED, TURNED = 0.015, 0.15  # m, rad: further than any expert's grasp forgives for sure
STIRRED = 0.002  # m: an object begins to move


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """An error that was seen.

    Attributes:
        kind: see the module.
        step: when it was seen.
        since: the first step of the episode whose planned action was not what should have been done.
    """

    kind: str
    step: int
    since: int


class Watch:
    """Watches one plan being executed, from a world in which it has just been made.

    Args:
        session: what is watched.
        begin: step of the episode at which the plan begins.
    """

    def __init__(self, session: TaskSession, begin: int) -> None:
        self._session, self._world = session, session.world
        self._found = self._world.object_pose()
        self._touched = np.zeros(len(self._found), dtype=bool)
        self._stirred: dict[int, int] = {}
        self._meant = [False] * len(ARMS)
        self._closed = [False] * len(ARMS)
        self._kept = [begin] * len(ARMS)  # the step after the last one at which a hand had what it should have
        self._best, self._rose = session.status().progress, begin

    def update(self, step: int, command: np.ndarray) -> Alarm | None:
        """After control step `step` of the episode, in which the plan said `command` f32[30]."""
        touch = np.array([self._world.finger_contacts(i) for i in range(len(self._found))]).reshape(-1, len(ARMS), 2)
        self._touched |= touch.any(axis=(1, 2))
        status = self._session.status()
        if status.progress > self._best:
            self._best, self._rose = status.progress, step + 1
        alarms = [self._hand(arm, step, command, touch) for arm in range(len(ARMS))]
        alarms += [self._moved(i, step) for i in range(len(self._found))]
        return next((alarm for alarm in alarms if alarm is not None), None)

    def over(self, step: int) -> Alarm:
        """The plan is over at `step` without success: right was, at most, what led to the furthest stage reached."""
        return Alarm(kind="not_done", step=step, since=min(self._rose, step))

    def _hand(self, arm: int, step: int, command: np.ndarray, touch: np.ndarray) -> Alarm | None:
        closed = bool(command[UnifiedAction.gripper(arm)][0] < 0.5)
        if closed and not self._closed[arm]:
            self._meant[arm] = nearest_object(self._world, self._world.tool_pose()[arm, :3], BESIDE) is not None
            self._kept[arm] = step
        self._closed[arm] = closed
        if any(holding(item)[arm] for item in touch):
            self._kept[arm] = step + 1
        opening = float(self._world.proprio()[UnifiedAction.gripper(arm)][0])
        if closed and self._meant[arm] and opening < EMPTY_OPENING:
            return Alarm(kind="empty_hand", step=step, since=min(self._kept[arm], step))
        return None

    def _moved(self, item: int, step: int) -> Alarm | None:
        if self._touched[item]:
            return None
        was, now = self._found[item], self._world.object_pose()[item]
        if any(closed and meant for closed, meant in zip(self._closed, self._meant, strict=True)):
            self._found[item] = now  # what is held may carry it along
            return None
        off = float(np.linalg.norm(now[:3] - was[:3]))
        turned = 2.0 * float(np.arccos(np.clip(abs(now[3:] @ was[3:]), 0.0, 1.0)))
        if off > STIRRED:
            self._stirred.setdefault(item, step)
        if off < MOVED and turned < TURNED:
            return None
        return Alarm(kind="object_moved", step=step, since=self._stirred.get(item, step))
