"""Which tasks can be seen: how soon a linear read-out tells where things lie from the first frame of an episode.

What a policy has to learn from images, before anything else, is where the objects and goals of a new scene are. A task
whose goal a ridge regression still misses by centimetres after hundreds of scenes will not be solved by a policy that
sees as many. Frames are those that a run would see: its cameras, sizes, encoder and domain; scenes are of `tune`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.encoder import FIRST_SEED, FOLDS, Ridge, Split
from embodichain.contracts import Recipe, seed_range
from embodichain.encoders import Encoder
from tasks.session import TaskSession, sim_hash

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)  # of the training scenes: does it get better with more?
LEAST = 12 * FOLDS  # scenes: two thirds are learned from, an eighth of those must fill the folds


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """First frames of one task, N of them.

    Attributes:
        features: f32[N, D], all tokens of all cameras, flattened.
        places: name of an object or a goal -> f64[N, 3], world frame, m.
    """

    features: np.ndarray
    places: dict[str, np.ndarray]


def first_frames(
    task: str,
    domain: str,
    scenes: int,
    session: TaskSession,
    encoder: Encoder,
    tick: Callable[[], None] = lambda: None,
) -> Scenes:
    """Scenes `FIRST_SEED`, ... of the range `tune`, encoded before anything moves. Nothing is simulated."""
    features, places = [], []
    for i in range(scenes):
        seed = seed_range("tune").at(FIRST_SEED + i)
        session.reset(Recipe(task=task, seed=seed, domain=domain, sim_hash=sim_hash()))
        seen = session.observe(rgb=True)
        features.append(encoder.encode(seen).astype(np.float32).ravel())
        places.append(np.concatenate([seen.object_pose[:, :3], seen.goal_pose[:, :3]]).astype(np.float64))
        tick()
    spec = session.scene.spec
    names = [f"object {o.name}" for o in spec.objects] + [f"goal {g.name}" for g in spec.goals]
    return Scenes(features=np.stack(features), places=dict(zip(names, np.stack(places, axis=1), strict=True)))


def run(task: str, scenes: Scenes, *, seed: int = 0) -> list[dict[str, object]]:
    """One row per thing: mean error in cm on scenes that nothing was learned from, by scenes learned from.

    `blind_cm` is the error of who sees nothing and says the mean. A thing that lies at one place has none of either.
    """
    whole = Split.of(np.arange(len(scenes.features)), seed=seed, test_share=1 / 3)
    order = np.random.default_rng(seed).permutation(whole.train)
    rows: list[dict[str, object]] = [
        {"task": task, "thing": name, "blind_cm": _cm(place[whole.train].mean(axis=0), place[whole.test])}
        for name, place in scenes.places.items()
    ]
    for share in SHARES:
        known = order[: round(share * len(order))]
        part = Split(train=known, test=whole.test, fold=np.arange(len(known)) % FOLDS)
        ridge = Ridge(scenes.features, part)
        for row, place in zip(rows, scenes.places.values(), strict=True):
            row[f"cm_{len(known)}"] = _cm(ridge.fit(place)[1], place[part.test])
    return rows


def _cm(guess: np.ndarray, truth: np.ndarray) -> float:
    return 100.0 * float(np.linalg.norm(guess - truth, axis=1).mean())
