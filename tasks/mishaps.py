"""Mishaps injected into an expert's plan: a hand that opens, a reach that misses, an object that is pushed.

They are drawn from the plan alone, whatever the task: from when its grippers close, and on what. Nothing here knows
whether a mishap does any harm; `tasks.watch` finds that out from physics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from embodichain.contracts import ACTION_DIM, ARMS, UnifiedAction
from envs import PandaKinematics, arm_base
from envs.world import DualArmWorld
from tasks.base import ExpertPlan

SHARE = 2.0 / 3.0  # of all episodes have a mishap
NEAR = 0.03  # m from an object's box to a tool that closes on it
SLIP_STEPS = (3, 7)  # control steps, how long a hand opens
MISS_DISTANCE = (0.015, 0.04)  # m
MISS_RAMP, MISS_HOLD = 15, 6  # control steps, before and after the hand closes
PUSH_SPEED = (0.35, 0.9)  # m/s; on the table it slides v^2 / 2 mu g, some centimetres
SETTLED = 8  # control steps around a grip in which no slip begins


@dataclass(frozen=True, kw_only=True)
class Grip:
    """One closing of a gripper in a plan.

    Attributes:
        arm: 0 left, 1 right.
        close, open: the steps at which the command turns; `open` is the plan's length if it never does.
        item: the object that the tool is at then, if it has not moved since the plan was made.
    """

    arm: int
    close: int
    open: int
    item: int | None


@dataclass(frozen=True, kw_only=True)
class Mishap:
    """What goes wrong, and when.

    Attributes:
        kind: `slip`, `misgrasp` or `push`.
        start, stop: control steps in which it acts.
        deviation: f32[stop - start, A], added to what is executed.
        item, velocity: the object that is pushed at `start`, and how, m/s.
        detail: what was drawn, JSON-able.
    """

    kind: str
    start: int
    stop: int
    deviation: np.ndarray
    item: int | None = None
    velocity: np.ndarray | None = None
    detail: dict[str, object]


def box_distance(point: np.ndarray, pose: np.ndarray, half: np.ndarray) -> float:
    """From a point f[3] to the surface of a box at `pose` f[7] with half extents f[3], m; 0 inside."""
    w, v = pose[3], pose[4:]
    offset = np.asarray(point) - pose[:3]
    local = offset - 2.0 * w * np.cross(v, offset) + 2.0 * np.cross(v, np.cross(v, offset))
    return float(np.linalg.norm(np.maximum(np.abs(local) - half, 0.0)))


def nearest_object(world: DualArmWorld, point: np.ndarray, within: float) -> int | None:
    """The object whose box lies nearest to a point of the world, if within so many metres."""
    objects = world.spec_scene.objects
    gaps = [box_distance(point, p, np.array(o.half_extents)) for p, o in zip(world.object_pose(), objects, strict=True)]
    return int(np.argmin(gaps)) if gaps and min(gaps) < within else None


def grips(plan: ExpertPlan, world: DualArmWorld) -> list[Grip]:
    """Every closing of a gripper after the plan's first step, in order; `world` as the plan found it."""
    found = []
    for arm in range(len(ARMS)):
        closed = plan.action[:, UnifiedAction.gripper(arm)][:, 0] < 0.5
        base = arm_base(arm, world.spec_scene.base_distance).to_transformation_matrix()
        turns = np.flatnonzero(np.diff(closed)) + 1
        for close in turns[closed[turns]]:
            later = turns[turns > close]
            x, y, z = plan.action[close, UnifiedAction.eef(arm)][:3]
            tool = base @ np.array([x, y, z, 1.0])
            item = nearest_object(world, tool[:3], NEAR)
            stop = int(later[0]) if len(later) else len(closed)
            found.append(Grip(arm=arm, close=int(close), open=stop, item=item))
    return sorted(found, key=lambda grip: (grip.close, grip.arm))


def draw_mishap(
    plan: ExpertPlan, world: DualArmWorld, kinematics: PandaKinematics, rng: np.random.Generator
) -> Mishap | None:
    """The mishap of an episode, if it has one: a kind that the plan has room for, at a random time and place."""
    if rng.random() >= SHARE:
        return None
    found = grips(plan, world)
    slips = [partial(_slip, grip) for grip in found if grip.open - grip.close > 2 * SETTLED]
    misses = [partial(_misgrasp, plan, grip, kinematics) for grip in found if grip.close > MISS_RAMP]
    pushes = [partial(_push, *place) for place in _pushes(plan, found, world)]
    kinds: list[Sequence[Callable[[np.random.Generator], Mishap | None]]] = [slips, misses, pushes]
    possible = [kind for kind in kinds if kind]
    if not possible:
        return None
    kind = possible[int(rng.integers(len(possible)))]
    return kind[int(rng.integers(len(kind)))](rng)


def _slip(grip: Grip, rng: np.random.Generator) -> Mishap:
    start = int(rng.integers(grip.close + SETTLED, grip.open - SETTLED))
    deviation = np.zeros((int(rng.integers(*SLIP_STEPS)), ACTION_DIM), dtype=np.float32)
    deviation[:, UnifiedAction.gripper(grip.arm)] = 1.0
    stop = start + len(deviation)
    return Mishap(kind="slip", start=start, stop=stop, deviation=deviation, detail={"arm": ARMS[grip.arm]})


def _misgrasp(plan: ExpertPlan, grip: Grip, kinematics: PandaKinematics, rng: np.random.Generator) -> Mishap | None:
    """The hand closes beside where it should, and comes back to its path while it goes on."""
    joints = plan.action[grip.close, UnifiedAction.joints(grip.arm)].astype(np.float64)
    pose = kinematics.forward(joints)
    angle, distance = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(*MISS_DISTANCE)
    pose[:2] += distance * np.array([np.cos(angle), np.sin(angle)])
    missed = kinematics.inverse(pose, joints)
    if missed is None:
        return None
    start, stop = grip.close - MISS_RAMP, min(grip.close + MISS_HOLD + MISS_RAMP, len(plan.action))
    weight = np.interp(
        np.arange(start, stop), [start, grip.close - 3, grip.close + MISS_HOLD, stop], [0.0, 1.0, 1.0, 0.0]
    )
    deviation = np.zeros((stop - start, ACTION_DIM), dtype=np.float32)
    deviation[:, UnifiedAction.joints(grip.arm)] = weight[:, None] * (missed - joints)
    detail: dict[str, object] = {"arm": ARMS[grip.arm], "distance": distance}
    return Mishap(kind="misgrasp", start=start, stop=stop, deviation=deviation, detail=detail)


def _pushes(plan: ExpertPlan, found: list[Grip], world: DualArmWorld) -> list[tuple[int, int, int]]:
    """Which free objects can be pushed, and between which steps: before they are grasped, while nothing is held."""
    objects = world.spec_scene.objects
    if not found:  # nothing is grasped: before the first segment is over
        first = int(np.count_nonzero(plan.segment_id == plan.segment_id[0]))
        return [(i, 1, max(first // 2, 2)) for i, spec in enumerate(objects) if spec.joint is None]
    places = []
    for grip in found:
        begin = max([1, *(g.open for g in found if g.open <= grip.close)])
        if grip.item is not None and objects[grip.item].joint is None and grip.close - begin > 2 * SETTLED:
            places.append((grip.item, begin, grip.close - SETTLED))
    return places


def _push(item: int, low: int, high: int, rng: np.random.Generator) -> Mishap:
    start, angle, speed = int(rng.integers(low, high)), rng.uniform(0.0, 2.0 * np.pi), rng.uniform(*PUSH_SPEED)
    velocity = speed * np.array([np.cos(angle), np.sin(angle), 0.0])
    return Mishap(
        kind="push",
        start=start,
        stop=start,
        deviation=np.zeros((0, ACTION_DIM), dtype=np.float32),
        item=item,
        velocity=velocity.astype(np.float32),
        detail={"object": item, "speed": speed, "angle": angle},
    )
