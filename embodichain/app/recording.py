"""Verified episodes with camera frames, one after the other, in this process: what datasets are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from embodichain.actors.recipes import RecipeStream
from embodichain.contracts import Episode, Observation, Recipe
from embodichain.encoders import StateEncoder
from embodichain.rollout import RolloutOptions, make_episode
from envs import RenderConfig
from tasks.registry import slots
from tasks.session import TaskSession

_TRIES = 10  # recipes per wanted episode, at most; and some more where few are wanted
_MORE_TRIES = 40


class RecordedSession(TaskSession):
    """A session that keeps the cameras' frames.

    Taking them changes nothing in an episode: physics does not know of it, and what a frame shows depends on the
    recipe, the step and the camera alone.

    Attributes:
        every: control steps between frames.
        frames: of the reset and every `every`-th control step since, u8[V, H, W, 3] each; none without a renderer.
    """

    def __init__(self, render: RenderConfig | None, *, every: int = 1) -> None:
        super().__init__(render=render)
        self.every, self.frames = every, list[np.ndarray]()
        self._renders, self._steps = render is not None, 0

    def reset(self, recipe: Recipe) -> Observation:
        """See `TaskSession.reset`; the frames start anew."""
        observation = super().reset(recipe)
        self.frames, self._steps = [], 0  # whatever a recipe's parent left
        self._keep()
        return observation

    def step(self, action: np.ndarray) -> Observation:
        """See `TaskSession.step`."""
        observation = super().step(action)
        self._steps += 1
        self._keep()
        return observation

    def _keep(self) -> None:
        if self._renders and self._steps % self.every == 0:
            rgb = self.observe(rgb=True).rgb
            assert rgb is not None
            self.frames.append(rgb)


def recorded_episode(recipe: Recipe, session: RecordedSession) -> tuple[Episode | None, tuple[str, ...]]:
    """The episode that `embodichain episode make` makes of this recipe, with frames and without tokens, or why not.

    Its `tau` is the session's `every`. Raises `RuntimeError` naming the recipe if the task's code raises.
    """
    try:
        episode, verdict, _ = make_episode(recipe, session, StateEncoder(**slots([recipe.task])), RolloutOptions())
    except Exception as error:  # somebody's task
        raise RuntimeError(f"{recipe.to_json()}: error_{type(error).__name__}: {error}") from error
    if episode is None or not verdict.accepted:
        return None, verdict.reasons
    rgb = np.stack(session.frames) if session.frames else None
    return replace(episode, tokens=None, token_mask=None, encoder_id="", tau=session.every, rgb=rgb), ()


def verified_episodes(
    recipes: RecipeStream, count: int, session: RecordedSession, rejected: Counter[str]
) -> Iterator[Episode]:
    """The first `count` episodes of the stream that physics confirms.

    Args:
        recipes: one task's.
        count: how many, >= 1.
        session: that makes them.
        rejected: reasons are counted here.

    Raises:
        RuntimeError: far too few were accepted, or a task's code raised.
    """
    accepted, most = 0, _TRIES * count + _MORE_TRIES
    for _ in range(most):
        episode, reasons = recorded_episode(recipes.next(), session)
        rejected.update(reasons)
        if episode is not None:
            accepted += 1
            yield episode
            if accepted == count:
                return
    said = ", ".join(f"{reason} {times}" for reason, times in rejected.most_common())
    raise RuntimeError(
        f"{', '.join(recipes.weights)}: {accepted} of {count} episodes after {most} recipes; rejected: {said}"
    )
