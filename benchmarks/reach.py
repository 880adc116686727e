"""The stage `reach`: how evenly approach directions, grasp points and arm starts fill what the arms can reach.

Three ways to draw the same scenes' arm starts and grasps: `off`, without the stage; `uniform`, pseudo-random numbers in
place of the even ones, over the same ranges, likewise without what is out of reach; `reach`, the stage. Every episode
is made and judged like a run's; what is compared comes from the simulation of accepted ones: the tools' poses at the
start, and in the object's frame at the end of each grasp.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import qmc

from embodichain.contracts import ARMS, Observation, Recipe, UnifiedAction, seed_range
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions, make_episode
from tasks.base import ExpertPlan, Task, TaskScene
from tasks.judge import holding
from tasks.motion import tool_axis
from tasks.reach import AZIMUTH, HEIGHT, RADIUS, spread_over, vary_reach
from tasks.registry import get_task, slots
from tasks.sampling import draw_scene, stream
from tasks.session import TaskSession
from tasks.skills import BLOCK_SLACK

FIRST_SEED = 700_000  # of the range `test`: scenes that nothing else looks at
GRID, LEANS = 8, 32  # cells: per axis of contacts, of tilts for either pair of faces

Sampler = Callable[[Task, int], TaskScene]


def _off(task: Task, seed: int) -> TaskScene:
    return draw_scene(task, seed, "default")


def _uniform(task: Task, seed: int) -> TaskScene:
    def points(name: str, dimensions: int) -> np.ndarray:
        return stream(task.info.name, seed, f"uniform/{name}").random(dimensions)

    return vary_reach(_off(task, seed), points)


def _reach(task: Task, seed: int) -> TaskScene:
    return vary_reach(_off(task, seed), spread_over(task.info.name, seed))


SAMPLERS: dict[str, Sampler] = {"off": _off, "uniform": _uniform, "reach": _reach}


@dataclass
class Seen:
    """What accepted episodes showed.

    Attributes:
        starts: f64[3] each: a tool's start in the unit cube over the stage's shell (even by volume).
        approaches: f64[2] each: the pair of faces (0 or 1) of a grasp, and how far the tool leaned along them, rad.
        contacts: f64[2] each: the tool point along the faces and above the middle of the object held, over its slack.
    """

    episodes: int = 0
    accepted: int = 0
    starts: list[np.ndarray] = field(default_factory=list)
    approaches: list[np.ndarray] = field(default_factory=list)
    contacts: list[np.ndarray] = field(default_factory=list)


def start_in_cube(point: np.ndarray) -> np.ndarray:
    """A tool's place f64[3] in its base frame as a point of the unit cube over the shell of starts."""
    x, y, z = point
    near, far = np.square(RADIUS)
    turn = np.arctan2(y, x) / AZIMUTH
    return np.array([(x * x + y * y - near) / (far - near), 0.5 + 0.5 * turn, (z - HEIGHT[0]) / np.ptp(HEIGHT)])


def grasp_of(tool: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Approach and contact f64[2] (see `Seen`) of a cube at `block` f32[7] held by a tool at `tool` f32[7]."""
    axis, off = tool_axis(tool), tool[:3] - block[:3]
    along, side = (_turned_x(pose) for pose in (tool, block))
    faces = float(abs(along @ side) < np.sqrt(0.5))
    contact = [0.5 + 0.5 * (off @ along) / BLOCK_SLACK.along, off[2] / BLOCK_SLACK.above]
    return np.array([faces, np.arctan2(axis @ along, axis[2])]), np.array(contact)


def _turned_x(pose: np.ndarray) -> np.ndarray:
    """The horizontal direction f64[3] nearest to the x axis of a frame at `pose` f32[7]."""
    w, x, y, z = pose[3:].astype(np.float64)
    along = np.array([1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 0.0])
    return along / np.linalg.norm(along)


class Watcher(TaskSession):
    """A session that draws its scenes with `sampler`, and notes what the stage is about while an episode runs."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__(render=None)
        self.sampler, self.now = sampler, Seen()
        self._plan: ExpertPlan | None = None
        self._steps = 0

    def reset(self, recipe: Recipe) -> Observation:
        """As ever, but for who draws the scene."""
        task = get_task(recipe.task)
        observation = self.begin(task, self.sampler(task, recipe.seed))
        starts = [start_in_cube(observation.proprio[UnifiedAction.eef(arm)][:3]) for arm in range(len(ARMS))]
        self.now, self._plan, self._steps = Seen(starts=starts), None, 0
        return observation

    def expert(self) -> ExpertPlan:
        """As ever, remembered."""
        self._plan = super().expert()
        return self._plan

    def step(self, action: np.ndarray) -> Observation:
        """As ever; at the last step of a grasp, what is held is noted."""
        observation = super().step(action)
        self._steps += 1
        if self._plan is not None and self._steps < len(self._plan.segment_id):
            segment, then = self._plan.segment_id[self._steps - 1 : self._steps + 1]
            if segment != then and self._plan.segment_names[segment].startswith("grasp"):
                self._note(observation)
        return observation

    def _note(self, observation: Observation) -> None:
        for index, block in enumerate(observation.object_pose):
            for arm in np.flatnonzero(holding(self.world.finger_contacts(index))):
                approach, contact = grasp_of(observation.tool_pose[arm], block)
                self.now.approaches.append(approach)
                self.now.contacts.append(contact)


def watch(session: Watcher, task: str, seed: int, seen: Seen) -> None:
    """Make one episode; if physics confirms it, add what it showed to `seen`."""
    recipe = Recipe(task=task, seed=seed, domain="default")
    _, verdict, _ = make_episode(recipe, session, StateEncoder(**slots([task])), RolloutOptions())
    seen.episodes += 1
    if verdict.accepted:
        seen.accepted += 1
        seen.starts += session.now.starts
        seen.approaches += session.now.approaches
        seen.contacts += session.now.contacts


def nearest(points: np.ndarray) -> float:
    """Mean distance of points f64[N, D] to their nearest neighbour."""
    away, _ = cKDTree(points).query(points, k=2)
    return float(np.mean(away[:, 1]))


def coverage(points: np.ndarray, cells: tuple[int, ...]) -> float:
    """Share of so many `cells` per axis of the unit cube that hold at least one of the points f64[N, D]."""
    index = np.floor(np.clip(points, 0.0, 1.0 - 1e-9) * cells).astype(int)
    return len(np.unique(index, axis=0)) / float(np.prod(cells))


def spread_of(seen: Seen) -> dict[str, object]:
    """The measures: lower discrepancy, wider neighbours and more cells are better."""
    starts, approaches, contacts = (np.stack(rows) for rows in (seen.starts, seen.approaches, seen.contacts))
    leaning = approaches * [0.5, 0.5 / BLOCK_SLACK.tilt] + [0.25, 0.5]  # in the unit square, a column for either pair
    apart = approaches * [10.0, 1.0]  # rad; the pairs of faces are no neighbours
    return {
        "episodes": seen.episodes,
        "accepted": seen.accepted,
        "start_discrepancy": _discrepancy(starts),
        "start_nearest": nearest(starts),
        "start_coverage": coverage(starts, (4, 4, 4)),
        "approach_nearest_deg": float(np.rad2deg(nearest(apart))),
        "approach_coverage": coverage(leaning, (2, LEANS)),
        "contact_discrepancy": _discrepancy(contacts),
        "contact_nearest": nearest(contacts),
        "contact_coverage": coverage(contacts, (GRID, GRID)),
    }


def _discrepancy(points: np.ndarray) -> float:
    """Centred L2 discrepancy of points f64[N, D] in the unit cube; 0 is perfectly even."""
    return float(qmc.discrepancy(np.clip(points, 0.0, 1.0), method="CD") ** 0.5)


def run(tasks: list[str], episodes: int, blocks: int) -> list[dict[str, object]]:
    """One row per way of drawing and block of `episodes` consecutive seeds per task, then the means over blocks."""
    rows: list[dict[str, object]] = []
    sessions = {name: Watcher(sampler) for name, sampler in SAMPLERS.items()}
    for block in range(blocks):
        for name, session in sessions.items():
            seen = Seen()
            for task in tasks:
                for i in range(episodes):
                    watch(session, task, seed_range("test").at(FIRST_SEED + block * episodes + i), seen)
            rows.append({"what": name, "block": block, **spread_of(seen)})
    return rows + [_mean([row for row in rows if row["what"] == name]) for name in SAMPLERS]


def _mean(rows: list[dict[str, object]]) -> dict[str, object]:
    """The rows of one way of drawing in one: episodes added up, measures averaged."""
    numbers = {key: [float(str(row[key])) for row in rows] for key in rows[0] if key not in ("what", "block")}
    averaged = {k: float(np.mean(v)) if k not in ("episodes", "accepted") else int(sum(v)) for k, v in numbers.items()}
    return {"what": rows[0]["what"], "block": "mean", **averaged}
