"""Films of one simulator: a session that photographs every step, text over frames, and the episode with its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from embodichain.app.config import ConfigError
from embodichain.contracts import Observation, Recipe
from envs import RenderConfig
from tasks.base import ExpertPlan, PlanFailure
from tasks.session import TaskSession

Colour: TypeAlias = tuple[int, int, int]
WHITE, RED, GREEN = (255, 255, 255), (255, 70, 60), (110, 230, 120)
TEXT_SIZE = 14  # pixels
LAST_SECONDS = 2.5  # how long the verdict stays


def video_config(command: str) -> RenderConfig:
    """How films are rendered. Raises `ConfigError` naming `command` where there is no renderer."""
    from embodichain.doctor import renderer_available

    available, why = renderer_available()
    if not available:
        raise ConfigError(f"{command} needs a renderer and there is none: {why}; `embodichain doctor` says what to do")
    return RenderConfig()


def captioned(frame: np.ndarray, lines: Sequence[tuple[str, Colour]], *, size: int = TEXT_SIZE) -> np.ndarray:
    """A copy of u8[H, W, 3] with a line of text each from the upper left corner on, on a dark ground; wraps words."""
    image = Image.fromarray(frame)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=size)
    rows: list[tuple[str, Colour]] = []
    for text, colour in lines:
        row = ""
        for word in text.split():
            longer = f"{row} {word}".strip()
            if row and draw.textlength(longer, font=font) > image.width - 12:
                rows.append((row, colour))
                longer = word
            row = longer
        rows.append((row, colour))
    step = 1.35 * size
    for number, (row, _) in enumerate(rows):
        top = number * step
        draw.rectangle((0, top, draw.textlength(row, font=font) + 12, top + step), fill=(20, 20, 24))
    for number, (row, colour) in enumerate(rows):
        draw.text((6, number * step + 1), row, fill=colour, font=font)
    return np.asarray(image)


class FilmedSession(TaskSession):
    """A session that photographs what it does.

    Attributes:
        frames: captioned u8[H, W, 3], one of the reset and one of every `every`-th control step.
        steps: control steps since the reset.
        why_no_plan: what a failed plan had to say.
    """

    def __init__(self, render: RenderConfig, *, every: int) -> None:
        super().__init__(render=render)
        self._every = every
        self._plan: ExpertPlan | None = None
        self.steps = 0
        self.frames: list[np.ndarray] = []
        self.why_no_plan = ""

    def reset(self, recipe: Recipe) -> Observation:
        """See `TaskSession.reset`; the film starts anew."""
        self.frames, self._plan, self.steps = [], None, 0
        observation = super().reset(recipe)
        self._shoot()
        return observation

    def expert(self) -> ExpertPlan:
        """See `TaskSession.expert`."""
        try:
            self._plan = super().expert()
        except PlanFailure as failure:
            self.why_no_plan = str(failure)
            raise
        return self._plan

    def step(self, action: np.ndarray) -> Observation:
        """See `TaskSession.step`."""
        observation = super().step(action)
        self.steps += 1
        if self.steps % self._every == 0:
            self._shoot()
        return observation

    def caption(self) -> list[tuple[str, Colour]]:
        """The instruction; then segment, step and progress of this moment."""
        segment = "before the plan"
        if self._plan is not None and self.steps:
            planned = len(self._plan.action)
            segment = self._plan.segment_names[self._plan.segment_id[min(self.steps, planned) - 1]]
            segment = segment if self.steps <= planned else "holding still"
        status = self.status()
        parts = [
            segment,
            f"step {self.steps}",
            f"progress {status.progress:.2f}",
            *(["done"] if status.success else []),
        ]
        return [(self.instruction, WHITE), (" | ".join(parts), WHITE)]

    def _shoot(self) -> None:
        self.frames.append(captioned(self.render_frame(), self.caption()))


@dataclass(frozen=True, kw_only=True)
class EpisodeFilm:
    """Frames u8[H, W, 3] of one episode, and what became of it; `reasons` is empty where it was accepted."""

    frames: list[np.ndarray]
    fps: float
    steps: int
    reasons: tuple[str, ...]
    detail: str = ""


def film_episode(recipe: Recipe, *, every: int) -> EpisodeFilm:
    """Make the recipe's episode as an actor would, and film it to its verdict.

    Whatever the task's code raises after the scene was built ends the film under `error_<type>`, as it would end
    the recipe in a run.

    Raises:
        ConfigError: there is no renderer.
        RuntimeError: not even the scene could be built.
    """
    from embodichain.encoders import StateEncoder
    from embodichain.rollout import RolloutOptions, make_episode
    from tasks.registry import slots

    session = FilmedSession(video_config("episode show"), every=every)
    try:
        _, verdict, _ = make_episode(recipe, session, StateEncoder(**slots([recipe.task])), RolloutOptions())
        reasons = verdict.reasons
        detail = session.why_no_plan
    except Exception as error:  # somebody's task: its error is what the film is about
        if not session.frames:
            raise RuntimeError(f"{recipe.task} seed {recipe.seed}: error_{type(error).__name__}: {error}") from error
        reasons, detail = (f"error_{type(error).__name__}",), str(error)
    last = session.render_frame()
    colour = RED if reasons else GREEN
    said = f"rejected: {', '.join(reasons)}" if reasons else "accepted"
    lines = [*session.caption(), (said, colour), *([(detail, colour)] if detail else [])]
    fps = session.control_hz / every
    frames = [*session.frames, *[captioned(last, lines)] * round(LAST_SECONDS * fps)]
    steps = session.steps
    session.close()
    return EpisodeFilm(frames=frames, fps=fps, steps=steps, reasons=reasons, detail=detail)
