"""A demonstration carried over to another scene, in the manner of MimicGen (arXiv 2310.17596), from the idea.

Each stretch of a demonstration belongs, for either arm, to a frame: a reach to the object that is about to be grasped,
a carry to the goal (or the object) that the held object ends up at. Tool poses are kept relative to that frame, which
is elsewhere in the new scene; stretches are joined by fading from one transform into the next. Inverse kinematics and
timing are the expert's own. Whether it still works is for physics to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from embodichain.contracts import ARMS, UnifiedAction
from envs.physics import arm_base
from envs.world import DualArmWorld
from tasks.base import ExpertPlan, TaskInfo, TaskScene
from tasks.mishaps import box_distance
from tasks.skills import SETTLE_STEPS, Script

BESIDE = 0.06  # m, from a closing hand to the object that it takes, and from an object to its goal
ONTO = 0.08  # m, from an object's centre to the box of another one that it is put on
AT_HOME = 0.05  # m, from where a tool was at the reset
FADE = 0.6  # share of a stretch after which only its own frame counts
KNOTS = 16


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """An expert's plan and what the objects did.

    Attributes:
        scene: where it was.
        plan: T steps that led to success.
        objects: f32[T+1, O, 7], world frame; row t lies before step t.
    """

    scene: TaskScene
    plan: ExpertPlan
    objects: np.ndarray


def imitable(info: TaskInfo) -> bool:
    """Whether a task's skills tie tools to objects by grasping them, so that there are frames to follow."""
    return any(segment.split()[0] in ("grasp", "take") for segment in info.segments)


def _matrix(pose: np.ndarray | tuple[float, ...]) -> np.ndarray:
    out = np.eye(4)
    w, x, y, z = pose[3:]
    out[:3, :3] = Rotation.from_quat([x, y, z, w]).as_matrix()
    out[:3, 3] = pose[:3]
    return out


def _pose(matrix: np.ndarray) -> np.ndarray:
    x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat()
    return np.array([*matrix[:3, 3], *(np.array([w, x, y, z]) * (1.0 if w >= 0.0 else -1.0))])


def _fade(start: np.ndarray, end: np.ndarray, weight: float) -> np.ndarray:
    """Between two poses f64[4, 4]: positions straight, rotations the short way round."""
    out = np.eye(4)
    out[:3, :3] = Slerp([0.0, 1.0], Rotation.from_matrix([start[:3, :3], end[:3, :3]]))(weight).as_matrix()
    out[:3, 3] = (1.0 - weight) * start[:3, 3] + weight * end[:3, 3]
    return out


class Imitation:
    """One demonstration, carried over to the scene that `world` has just been reset to."""

    def __init__(self, parent: Demonstration, scene: TaskScene, world: DualArmWorld, script: Script) -> None:
        self._parent, self._scene, self._script = parent, scene, script
        self._bases = [
            arm_base(arm, scene.spec.base_distance).to_transformation_matrix().astype(np.float64)
            for arm in range(len(ARMS))
        ]
        action = parent.plan.action.astype(np.float64)
        self._grippers = np.stack([action[:, UnifiedAction.gripper(arm)][:, 0] for arm in range(len(ARMS))], axis=1)
        joints = np.stack([action[:, UnifiedAction.joints(arm)] for arm in range(len(ARMS))], axis=1)
        start = np.asarray(parent.scene.spec.arm_qpos, dtype=np.float64)
        change = np.abs(np.diff(joints, axis=0, prepend=start[None])).max(axis=2)
        self._moving, self._speed = change > 1e-6, change.max(axis=1)
        now = script.planner.tool_now
        first = [base @ _matrix(now(q)) for base, q in zip(self._bases, start, strict=True)]
        self._tools = [
            [first[arm], *(self._bases[arm] @ _matrix(row[UnifiedAction.eef(arm)]) for row in action)]
            for arm in range(len(ARMS))
        ]  # row t: where the parent's tool is told to be before step t
        self._here = [base @ _matrix(now(pen.q)) for base, pen in zip(self._bases, script.arms, strict=True)]
        self._home = [here @ np.linalg.inv(was) for here, was in zip(self._here, first, strict=True)]
        was, found = parent.objects[0], world.object_pose()
        self._shift = [_matrix(b) @ np.linalg.inv(_matrix(a)) for a, b in zip(was, found, strict=True)]
        goals = zip(parent.scene.spec.goals, scene.spec.goals, strict=True)
        self._goals = [(np.array(a.pose[:3]), _matrix(b.pose) @ np.linalg.inv(_matrix(a.pose))) for a, b in goals]
        self._held: list[int | None] = [None] * len(ARMS)
        self._used = [False] * len(ARMS)
        self._grip: list[tuple[np.ndarray, np.ndarray]] = [(np.eye(4), np.eye(4))] * len(ARMS)

    def plan(self) -> ExpertPlan:
        """The new scene's plan. Raises `PlanFailure`."""
        plan = self._parent.plan
        keys = np.column_stack([plan.segment_id, self._grippers])
        cuts = np.flatnonzero(np.any(np.diff(keys, axis=0) != 0.0, axis=1)) + 1
        bounds = [0, *cuts.tolist(), len(keys)]
        for begin, end in pairwise(bounds):
            for arm in range(len(ARMS)):
                self._turn_gripper(arm, begin)
            self._stretch(begin, end)
            last = end == len(keys) or plan.segment_id[end] != plan.segment_id[begin]
            if last:
                noise = 1.0 if plan.disturbance is None else float(plan.disturbance[begin])
                self._script.end(plan.segment_names[plan.segment_id[begin]], noise=noise)
        return self._script.plan()

    def _turn_gripper(self, arm: int, step: int) -> None:
        command, before = self._grippers[step, arm], self._grippers[step - 1, arm] if step else 1.0
        self._script.arms[arm].command = float(command)
        if command >= 0.5:
            self._held[arm] = None
        elif before >= 0.5:
            self._used[arm] = True
            item = self._held[arm] = self._beside(arm, step)
            if item is not None:
                was = _matrix(self._parent.objects[step, item])
                is_now = self._shift[item] @ was
                self._grip[arm] = (np.linalg.inv(was) @ self._tools[arm][step], np.linalg.inv(is_now) @ self._here[arm])

    def _beside(self, arm: int, step: int) -> int | None:
        """The object that the parent's tool was at before a step."""
        point = self._tools[arm][step][:3, 3]
        return self._nearest(point, step, set(), BESIDE)

    def _nearest(self, point: np.ndarray, step: int, but: set[int], within: float) -> int | None:
        specs, poses = self._parent.scene.spec.objects, self._parent.objects[step]
        gaps = {
            i: box_distance(point, poses[i], np.array(spec.half_extents))
            for i, spec in enumerate(specs)
            if i not in but
        }
        best = min(gaps, key=lambda i: gaps[i], default=None)
        return best if best is not None and gaps[best] < within else None

    def _stretch(self, begin: int, end: int) -> None:
        """Both arms through the parent's steps `begin <= t < end`."""
        busy = np.flatnonzero(self._moving[begin:end].any(axis=1)) + begin
        if not len(busy):
            self._script.wait(end - begin)
            return
        low, high = int(busy[0]), int(busy[-1]) + 1
        self._script.wait(low - begin)
        path = np.concatenate([[0.0], np.cumsum(self._speed[low:high])])
        steps = low + np.unique(np.searchsorted(path, np.linspace(0.0, path[-1], KNOTS) - 1e-9))
        knots = [self._knots(arm, steps, end) for arm in range(len(ARMS))]
        natural = len(self._script.planner.retime(np.concatenate(knots, axis=1)))
        self._script.in_step(knots, max(1.0, (high - low) / natural))
        self._script.wait(max(end - high, SETTLE_STEPS))
        for arm, item in enumerate(self._held):
            if item is not None:
                now = self._here[arm] @ np.linalg.inv(self._grip[arm][1])
                self._shift[item] = now @ np.linalg.inv(_matrix(self._parent.objects[end, item]))

    def _knots(self, arm: int, steps: np.ndarray, end: int) -> np.ndarray:
        """Joint knots f64[N, 7] of one arm through the parent's poses before `steps`, in the new scene."""
        pen, tools = self._script.arms[arm], self._tools[arm]
        if not self._moving[steps[0] : steps[-1], arm].any():
            return np.repeat(pen.q[None], len(steps), axis=0)
        before = self._here[arm] @ np.linalg.inv(tools[steps[0]])
        frame = self._frame(arm, end, before)
        was, now = self._grip[arm] if self._held[arm] is not None else (np.eye(4), np.eye(4))
        poses = []
        for share, step in zip(np.linspace(0.0, 1.0, len(steps)), steps, strict=True):
            u = min(share / FADE, 1.0)
            target = frame @ tools[step] @ np.linalg.inv(was) @ now
            poses.append(_fade(before @ tools[step], target, u * u * (3.0 - 2.0 * u)))
        self._here[arm] = poses[-1]
        inverse = np.linalg.inv(self._bases[arm])
        return self._script.planner.follow(pen.q, np.stack([_pose(inverse @ pose) for pose in poses]))

    def _frame(self, arm: int, end: int, before: np.ndarray) -> np.ndarray:
        """The transform f64[4, 4] from the parent's world to this one that holds for an arm when a stretch ends."""
        item = self._held[arm]
        if item is not None:
            return self._put_frame(item, end)
        closes = end < len(self._grippers) and self._grippers[end, arm] < 0.5 <= self._grippers[end - 1, arm]
        if closes and (item := self._beside(arm, end)) is not None:
            return self._grasp_frame(arm, item, end)
        away = float(np.linalg.norm(self._tools[arm][end][:3, 3] - self._tools[arm][0][:3, 3]))
        if away < AT_HOME:
            return self._home[arm]
        return before if self._used[arm] else np.eye(4)  # away from what it has put down, or to where nothing is yet

    def _grasp_frame(self, arm: int, item: int, end: int) -> np.ndarray:
        """Of the grasp point that the parent took: an object of another size offers it elsewhere."""
        was = _matrix(self._parent.objects[end, item])
        now = self._shift[item] @ was
        points = np.asarray(self._parent.scene.spec.objects[item].grasps)
        local = np.linalg.inv(was) @ self._tools[arm][end]
        index = int(np.argmin(np.linalg.norm(points - local[:3, 3], axis=1)))
        old, new = was.copy(), now.copy()
        old[:3, 3] += was[:3, :3] @ points[index]
        new[:3, 3] += now[:3, :3] @ np.asarray(self._scene.spec.objects[item].grasps[index])
        return np.asarray(new @ np.linalg.inv(old))

    def _put_frame(self, item: int, end: int) -> np.ndarray:
        """Of the goal that a held object ends up at, else of the object that it is put on, else of the world."""
        place = self._parent.objects[end, item, :3].astype(np.float64)
        away = [float(np.linalg.norm(position - place)) for position, _ in self._goals]
        if away and min(away) < BESIDE:
            return self._goals[int(np.argmin(away))][1]
        if self._scene.spec.objects[item].joint is not None:
            return self._shift[item]
        held = {other for other in self._held if other is not None}
        onto = self._nearest(place, end, held, ONTO)
        return np.eye(4) if onto is None else self._shift[onto]
