"""The stage `reach`: where the arms start and which grasps an expert takes, spread over what the arms can reach.

Both follow `tasks.spread`, indexed by the recipe's seed, so that recipes that know nothing of each other still fill
the reachable set evenly. Starts are tool poses in a shell before each base, brought to joint angles by inverse
kinematics; the few that are out of reach or too near to something are replaced by the next point of another sequence.
Grasps are left as numbers, which the expert maps onto what it can reach when it has seen the scene (`tasks.grasps`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import sapien

from embodichain.contracts import ARMS
from envs import ObjectSpec, PandaKinematics, SceneSpec, arm_base
from envs.build import to_sapien_pose
from tasks.base import TaskScene
from tasks.grasps import hold_of, reaches
from tasks.motion import compose
from tasks.spread import spread_point

Points = Callable[[str, int], np.ndarray]  # name of a sequence, dimensions -> a point of the unit cube, f64[dimensions]

RADIUS = (0.32, 0.56)  # m, of tools about their base: short of the middle of the table, where arms would meet
AZIMUTH = 0.75  # rad, to either side of straight ahead
HEIGHT = (0.15, 0.45)  # m, above the table
TURN, TILT = 0.8, 0.35  # rad, to either side
OWN_SIDE = 0.15  # m, that a tool starts from the middle line
TRIES = 32
GRASPS = 8  # grasps that an episode may draw
# Spheres about the hand and its fingers: centre in the tool frame and radius, m.
HAND = np.array([(0.0, s * 0.05, 0.005, 0.03) for s in (-1, 1)] + [(0.0, s * 0.06, 0.085, 0.065) for s in (-1, 0, 1)])
GAP = 0.02  # m, between these spheres and anything else


def vary_reach(scene: TaskScene, points: Points) -> TaskScene:
    """The scene with arm starts and grasp draws from `points`, and these added to its draws."""
    spec, draws = scene.spec, dict(scene.draws)
    starts = []
    for arm in range(len(ARMS)):
        start = _start(spec, arm, points)
        starts.append(spec.arm_qpos[arm] if start is None else tuple(start.tolist()))
    grasps = tuple(tuple(points(f"grasp/{k}", 4).tolist()) for k in range(GRASPS))
    draws |= {"arm_qpos": [list(start) for start in starts], "grasp_draws": [list(grasp) for grasp in grasps]}
    return replace(scene, spec=replace(spec, arm_qpos=(starts[0], starts[1]), grasp_draws=grasps), draws=draws)


def spread_over(task: str, seed: int) -> Points:
    """The points of one recipe, even over seeds."""
    return lambda name, dimensions: spread_point(f"{task}/{name}", seed, dimensions)


def start_pose(point: np.ndarray) -> np.ndarray:
    """The tool pose f64[7] in its base's frame for a point f64[5] of the unit cube: place by volume, turn, tilt."""
    near, far = RADIUS
    radius = np.sqrt(near**2 + point[0] * (far**2 - near**2))
    azimuth, turn, tilt = np.array([AZIMUTH, TURN, TILT]) * (2.0 * point[[1, 3, 4]] - 1.0)
    height = HEIGHT[0] + point[2] * (HEIGHT[1] - HEIGHT[0])
    place = np.array([radius * np.cos(azimuth), radius * np.sin(azimuth), height, 1.0, 0.0, 0.0, 0.0])
    return compose(place, hold_of(turn, tilt, 0.0, 0.0))


def _start(spec: SceneSpec, arm: int, points: Points) -> np.ndarray | None:
    """Joint angles f64[7] of the first candidate that is within reach and clear of everything; None: none of them."""
    for attempt in range(TRIES):
        pose = start_pose(points(f"start/{ARMS[arm]}/{attempt}", 5))
        if spec.base_distance - pose[0] >= OWN_SIDE and _clear(spec, arm, pose):
            q = reaches(_kinematics(), pose)
            if q is not None:
                return q
    return None


@cache
def _kinematics() -> PandaKinematics:
    return PandaKinematics()


def _clear(spec: SceneSpec, arm: int, pose: np.ndarray) -> bool:
    """Whether a hand at `pose` f64[7] (base frame) keeps its distance from the table and from every object."""
    hand = arm_base(arm, spec.base_distance) * sapien.Pose(pose[:3], pose[3:])
    centres = _moved(hand, HAND[:, :3])
    away = HAND[:, 3] + GAP
    return bool((centres[:, 2] > away).all()) and all((_distance(o, centres) > away).all() for o in spec.objects)


def _distance(spec: ObjectSpec, points: np.ndarray) -> np.ndarray:
    """Distance of points f64[N, 3] from the box around an object and its base, f64[N], m."""
    local = _moved(to_sapien_pose(spec.pose).inv(), points)
    half = np.max([np.abs(p.position) + np.asarray(p.half_size) for p in (*spec.parts, *spec.base)], axis=0)
    return np.asarray(np.linalg.norm(np.maximum(np.abs(local) - half, 0.0), axis=1))


def _moved(frame: sapien.Pose, points: np.ndarray) -> np.ndarray:
    matrix = frame.to_transformation_matrix()
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])
