"""Camera frames of our own simulator, with what is true in them: what encoders are distilled from and probed on.

Takes recipes, hands on a `FrameSet`: one row per picture. Whether physics accepts an episode does not matter to how it
looks, so rejected ones stay in. On disk a set is a folder of parts, each written whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from embodichain.actors.training import check_training
from embodichain.contracts import Observation, Recipe
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions, make_episode
from envs import RenderConfig
from tasks.registry import slots, task_info, task_names
from tasks.session import TaskSession, sim_hash

CAMERAS = ("front", "top", "left", "right")
DOMAINS = ("full", "full", "default")  # in turn: two episodes with every randomisation, one with the plain look
_SETTINGS = "frames.json"


@dataclass(frozen=True, kw_only=True)
class FrameSet:
    """Pictures and what is true in them; N rows.

    Attributes:
        rgb: u8[N, H, W, 3].
        camera: i16[N], index into the cameras that were asked for.
        episode: i32[N], index of the recipe; rows of one episode stand together.
        step: i16[N], control step.
        object_position: f32[N, 3], of the task's first object, world frame, m; NaN where there is none.
        tool_position: f32[N, 2, 3], of the left and the right gripper, world frame, m.
        contact: bool[N, 2], whether a finger of that gripper presses on any object.
    """

    rgb: np.ndarray
    camera: np.ndarray
    episode: np.ndarray
    step: np.ndarray
    object_position: np.ndarray
    tool_position: np.ndarray
    contact: np.ndarray

    def __len__(self) -> int:
        return len(self.rgb)

    @classmethod
    def joined(cls, parts: Sequence[FrameSet]) -> FrameSet:
        """The rows of all parts, in order."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def where(self, rows: np.ndarray) -> FrameSet:
        """Only these rows (a mask or indices)."""
        return FrameSet(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


class FrameSession(TaskSession):
    """A session that photographs every `every`-th control step, from a phase that the recipe decides."""

    def __init__(self, render: RenderConfig, *, every: int) -> None:
        super().__init__(render=render)
        self._every, self._step, self._phase = every, 0, 0
        self._rows: list[dict[str, Any]] = []

    def reset(self, recipe: Recipe) -> Observation:
        """See `TaskSession.reset`; the rows start anew."""
        observation = super().reset(recipe)
        self._rows, self._step = [], 0
        self._phase = int(np.random.default_rng([recipe.seed, 0xF4A]).integers(self._every))
        self._photograph()
        return observation

    def step(self, action: np.ndarray) -> Observation:
        """See `TaskSession.step`."""
        observation = super().step(action)
        self._step += 1
        self._photograph()
        return observation

    def _photograph(self) -> None:
        if self._step % self._every != self._phase:
            return
        seen = self.observe(rgb=True)
        assert seen.rgb is not None
        objects = seen.object_pose
        truth = {
            "step": self._step,
            "object_position": objects[0, :3] if len(objects) else np.full(3, np.nan),
            "tool_position": seen.tool_pose[:, :3],
            "contact": self.world.contacts().fingers.any(axis=(0, 2)),
        }
        self._rows += [{"rgb": frame, "camera": camera, **truth} for camera, frame in enumerate(seen.rgb)]

    def rows(self, episode: int) -> FrameSet | None:
        """What was photographed since the reset, under that episode number; None if nothing was."""
        if not self._rows:
            return None
        columns = {name: np.stack([row[name] for row in self._rows]) for name in self._rows[0]}
        types = {"camera": np.int16, "step": np.int16, "object_position": np.float32, "tool_position": np.float32}
        columns |= {name: columns[name].astype(dtype) for name, dtype in types.items()}
        return FrameSet(**columns, episode=np.full(len(self._rows), episode, dtype=np.int32))


def photographed(recipes: Iterable[Recipe], session: FrameSession) -> Iterator[FrameSet]:
    """The rows of one recipe after the other; a recipe without a plan gives none.

    Raises `RuntimeError` naming the recipe if the task's code raises.
    """
    for number, recipe in enumerate(recipes):
        try:
            episode, _, _ = make_episode(recipe, session, StateEncoder(**slots([recipe.task])), RolloutOptions())
        except Exception as error:  # somebody's task
            raise RuntimeError(f"{recipe.to_json()}: error_{type(error).__name__}: {error}") from error
        rows = session.rows(number) if episode is not None else None
        if rows is not None:
            yield rows


def training_recipes(seed: int, tasks: Sequence[str] = (), domains: Sequence[str] = DOMAINS) -> Iterator[Recipe]:
    """Without end: the training tasks in a seeded order, the domains in turn, seeds of the range `train` only.

    Raises `ValueError` for a held-out task or domain.
    """
    from embodichain.actors.recipes import RecipeStream

    names = list(tasks) or [name for name in task_names() if task_info(name).split == "train"]
    stream = RecipeStream(weights=dict.fromkeys(names, 1.0), domain="default", run_seed=seed, sim_hash=sim_hash())
    for domain in cycle(domains):
        recipe = replace(stream.next(), domain=domain)
        check_training(recipe)  # the stream has seen another domain
        yield recipe


def collect(
    folder: Path,
    *,
    frames: int,
    seed: int,
    size: int = 128,
    every: int = 24,
    part_episodes: int = 24,
    on_frames: Callable[[int], None] = lambda done: None,
    stopping: Callable[[], bool] = lambda: False,
) -> FrameSet:
    """At least `frames` pictures of the training tasks in `folder`; what is there already is not made again.

    Args:
        folder: made if missing.
        frames: how many.
        seed: of the recipes, as a run's.
        size: pixels, width and height.
        every: control steps between pictures of an episode.
        part_episodes: recipes per file.
        on_frames: told how many there are, now and then.
        stopping: asked before every part; then what there is comes back.

    Raises:
        ValueError: the folder holds frames made otherwise.
        RuntimeError: a task's code raised.
    """
    settings = {"seed": seed, "size": size, "every": every, "part_episodes": part_episodes, "cameras": list(CAMERAS)}
    settings |= {"domains": list(DOMAINS), "sim_hash": sim_hash()}
    _claim(folder, settings)
    parts, session = [read_part(path) for path in part_files(folder)], None
    recipes = training_recipes(seed)
    for _ in range(len(parts) * part_episodes):
        next(recipes)
    while (done := sum(len(part) for part in parts)) < frames and not stopping():
        on_frames(done)
        session = session or FrameSession(RenderConfig(cameras=CAMERAS, width=size, height=size), every=every)
        batch = [next(recipes) for _ in range(part_episodes)]
        part = FrameSet.joined(list(photographed(batch, session)))
        part.episode[:] += len(parts) * part_episodes
        write_part(folder / f"part-{len(parts):04d}.npz", part)
        parts.append(part)
    if session is not None:
        session.close()
    return FrameSet.joined(parts)


def part_files(folder: Path) -> list[Path]:
    """The parts of a set on disk, in order."""
    return sorted(folder.glob("part-*.npz"))


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _SETTINGS
    if not path.exists():
        path.write_text(json.dumps(settings, indent=1) + "\n")
        return
    found = json.loads(path.read_text())
    for key, value in settings.items():
        if found.get(key) != value:
            raise ValueError(f"{path}: {key}={found.get(key)}, this run wants {value}; expected another folder")


def read_part(path: Path) -> FrameSet:
    """A file of `write_part`. Raises `ValueError` if it is none."""
    try:
        with np.load(path) as file:
            return FrameSet(**{item.name: file[item.name] for item in fields(FrameSet)})
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: not a part of a frame set ({str(error).splitlines()[0]}); delete it") from error


def write_part(path: Path, part: FrameSet) -> None:
    """Write a set to one file, whole or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **{item.name: getattr(part, item.name) for item in fields(FrameSet)})
    os.replace(partial, path)
