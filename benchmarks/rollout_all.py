"""Generation, task by task: episodes and frames a minute, what rendering costs, and whether memory grows.

Every measurement runs in a process of its own, as an actor would, one after the other.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from embodichain.contracts import Observation, Recipe, seed_range
from embodichain.encoders import FrameByFrame, StateEncoder
from embodichain.rollout import RolloutOptions, make_episode
from envs import RenderConfig
from tasks.registry import slots
from tasks.session import TaskSession

FIRST_SEED = 600_000  # of the `test` range
SIZE = 128  # pixels
TAU = 8  # control steps between frames
MEMORY_SAMPLES = 20
RENDER_TASKS = ("pick_place", "handover")  # whose episodes the rendering ratios are measured on

Result = TypeVar("Result")


class FrameEncoder(FrameByFrame):
    """Keeps a frame's mean colour per view as its token: asks for frames and costs nothing beside them."""

    needs_rgb, channels, max_tokens, id = True, 3, 1, "frame-mean"
    dtype = np.dtype(np.float32)

    def encode(self, observation: Observation) -> np.ndarray:
        """f32[V, 3]."""
        assert observation.rgb is not None
        return observation.rgb.mean(axis=(1, 2)).astype(np.float32)

    def token_mask(self, observation: Observation) -> np.ndarray:
        """bool[V]."""
        del observation
        return np.ones(1, dtype=bool)


def _recipe(task: str, index: int) -> Recipe:
    return Recipe(task=task, seed=seed_range("test").at(FIRST_SEED + index))


def physics_only(task: str, episodes: int) -> dict[str, object]:
    """Verified episodes a minute and control steps a second without a renderer."""
    session, encoder = TaskSession(render=None), StateEncoder(**slots([task]))
    make_episode(_recipe(task, 0), session, encoder, RolloutOptions())
    accepted = steps = 0
    started = time.perf_counter()
    for index in range(1, episodes + 1):
        episode, verdict, _ = make_episode(_recipe(task, index), session, encoder, RolloutOptions())
        accepted += verdict.accepted
        steps += 0 if episode is None else episode.pairs
    seconds = time.perf_counter() - started
    return {"task": task, "episodes_per_minute": 60 * accepted / seconds, "steps_per_second": steps / seconds}


def rendered(task: str, episodes: int, visuals: str = "light", tau: int = TAU) -> dict[str, float]:
    """Verified episodes a minute and frames a second with frames of one camera, 128 px."""
    session = TaskSession(render=RenderConfig(width=SIZE, height=SIZE, robot_visuals=visuals))
    encoder, options = FrameEncoder(), RolloutOptions(tau=tau)
    session.reset(_recipe(task, 0))
    session.observe(rgb=True)  # compiles the shaders
    accepted = frames = 0
    started = time.perf_counter()
    for index in range(1, episodes + 1):
        episode, verdict, _ = make_episode(_recipe(task, index), session, encoder, options)
        accepted += verdict.accepted
        frames += 0 if episode is None or episode.tokens is None else len(episode.tokens)
    seconds = time.perf_counter() - started
    return {"rendered_per_minute": 60 * accepted / seconds, "frames_per_second": frames / seconds}


def render_gains(task: str, episodes: int) -> Iterator[dict[str, object]]:
    """The same episodes with a frame of the stock visuals at every control step, and with what is saved from that."""
    plain = 0.0
    for visuals, tau in (("stock", 1), ("light", 1), ("stock", TAU), ("light", TAU)):
        rate = apart(rendered, task, episodes, visuals, tau)["rendered_per_minute"]
        plain = plain or rate
        what = f"{task}: {visuals} visuals, a frame every {tau} control step{'s' if tau > 1 else ''}"
        yield {"what": what, "episodes": episodes, "episodes_per_minute": rate, "ratio": rate / plain}


def memory(tasks: list[str], episodes: int, *, render: bool) -> dict[str, object]:
    """Resident memory of one simulator over `episodes`, tasks in turn: its last value and the slope over the run.

    The slope is a least-squares line over the second half, as a share of its mean per 1000 episodes.
    """
    session = TaskSession(render=RenderConfig(width=SIZE, height=SIZE) if render else None)
    encoder = FrameEncoder() if render else StateEncoder(**slots(tasks))
    every, samples = max(1, episodes // MEMORY_SAMPLES), []
    for index in range(episodes):
        make_episode(_recipe(tasks[index % len(tasks)], index), session, encoder, RolloutOptions(tau=TAU))
        if (index + 1) % every == 0:
            samples.append((index + 1, _resident_mb()))
    late = np.array(samples[len(samples) // 2 :])
    slope = np.polyfit(late[:, 0], late[:, 1], 1)[0] * 1000 / late[:, 1].mean()
    return {
        "what": "memory of a simulator, " + ("rendered" if render else "physics only"),
        "episodes": episodes,
        "megabytes": samples[-1][1],
        "slope_per_1000_episodes": float(slope),
    }


def _resident_mb() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def apart(function: Callable[..., Result], *arguments: object, **options: object) -> Result:
    """Call `function` in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments, options)


def run(tasks: list[str], episodes: int, memory_episodes: int, *, render: bool) -> Iterator[dict[str, object]]:
    """All rows: one per task, then the rendering ratios, then memory."""
    for task in tasks:
        row = apart(physics_only, task, episodes)
        yield {**row, **(apart(rendered, task, episodes) if render else {})}
    if render:
        for task in RENDER_TASKS:
            yield from render_gains(task, max(2, episodes // 5))
    for with_frames in (False, True) if render else (False,):
        yield apart(memory, tasks, memory_episodes, render=with_frames)
