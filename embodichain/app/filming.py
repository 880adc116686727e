"""Films of one simulator: a session that photographs every step, text over frames, and the episode with its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from embodichain.app.config import ConfigError
from embodichain.contracts import Observation, Recipe, seed_range
from envs import RenderConfig
from tasks.base import ExpertPlan, PlanFailure
from tasks.session import TaskSession, sim_hash

Colour: TypeAlias = tuple[int, int, int]
WHITE, RED, GREEN = (255, 255, 255), (255, 70, 60), (110, 230, 120)
TEXT_SIZE = 14  # pixels
LAST_SECONDS = 2.5  # how long the verdict stays


def need_renderer(command: str) -> None:
    """Raise `ConfigError` naming `command` where there is no renderer."""
    from embodichain.doctor import renderer_available

    available, why = renderer_available()
    if not available:
        raise ConfigError(f"{command} needs a renderer and there is none: {why}; `embodichain doctor` says what to do")


def filmed_session(command: str, *, every: int) -> FilmedSession:
    """A session that films. Raises `ConfigError` naming `command` where there is no renderer."""
    need_renderer(command)
    return FilmedSession(RenderConfig(), every=every)


def recipe_of_test(task: str, index: int, domain: str = "default") -> Recipe:
    """The recipe of a `test` seed, by its index."""
    return Recipe(task=task, seed=seed_range("test").at(index), domain=domain, sim_hash=sim_hash())


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


class Shot(NamedTuple):
    """A photograph u8[H, W, 3] and what there is to say about the moment."""

    frame: np.ndarray
    caption: list[tuple[str, Colour]]


class FilmedSession(TaskSession):
    """A session that photographs what it does.

    Attributes:
        shots: one of the reset and one of every `every`-th control step.
        every: control steps between shots.
        steps: control steps since the reset.
        why_no_plan: what a failed plan had to say.
    """

    def __init__(self, render: RenderConfig, *, every: int) -> None:
        super().__init__(render=render)
        self.every = every
        self._plan: ExpertPlan | None = None
        self.steps = 0
        self.shots: list[Shot] = []
        self.why_no_plan = ""

    def reset(self, recipe: Recipe) -> Observation:
        """See `TaskSession.reset`; the film starts anew."""
        observation = super().reset(recipe)  # which may play a parent's demonstration first
        self.shots, self._plan, self.steps, self.why_no_plan = [], None, 0, ""
        self.shots.append(self.shoot())
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
        if self.steps % self.every == 0:
            self.shots.append(self.shoot())
        return observation

    def shoot(self) -> Shot:
        """This moment: the instruction; then segment, step and progress."""
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
        return Shot(self.render_frame(), [(self.instruction, WHITE), (" | ".join(parts), WHITE)])


@dataclass(frozen=True, kw_only=True)
class EpisodeFilm:
    """The shots of one episode, and what became of it; `reasons` is empty where it was accepted."""

    shots: list[Shot]
    fps: float
    steps: int
    reasons: tuple[str, ...]
    detail: str = ""

    @property
    def frames(self) -> list[np.ndarray]:
        """Captioned frames u8[H, W, 3]; the last one stays for a while, with the verdict."""
        colour = RED if self.reasons else GREEN
        said = f"rejected: {', '.join(self.reasons)}" if self.reasons else "accepted"
        last = self.shots[-1]
        lines = [*last.caption, (said, colour), *([(self.detail, colour)] if self.detail else [])]
        verdict = [captioned(last.frame, lines)] * round(LAST_SECONDS * self.fps)
        return [*(captioned(shot.frame, shot.caption) for shot in self.shots), *verdict]


def film_episode(session: FilmedSession, recipe: Recipe) -> EpisodeFilm:
    """Make the recipe's episode as an actor would, and film it to its verdict.

    Whatever the task's code raises after the scene was built ends the film under `error_<type>`, as it would end
    the recipe in a run. Raises `RuntimeError` if not even the scene could be built.
    """
    from embodichain.encoders import StateEncoder
    from embodichain.rollout import RolloutOptions, make_episode
    from tasks.registry import slots

    session.shots = []
    try:
        _, verdict, _ = make_episode(recipe, session, StateEncoder(**slots([recipe.task])), RolloutOptions())
        reasons, detail = verdict.reasons, session.why_no_plan
    except Exception as error:  # somebody's task: its error is what the film is about
        if not session.shots:
            raise RuntimeError(f"{recipe.task} seed {recipe.seed}: error_{type(error).__name__}: {error}") from error
        reasons, detail = (f"error_{type(error).__name__}",), str(error)
    return EpisodeFilm(
        shots=[*session.shots, session.shoot()],
        fps=session.control_hz / session.every,
        steps=session.steps,
        reasons=reasons,
        detail=detail,
    )
