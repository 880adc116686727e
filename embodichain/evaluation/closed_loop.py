"""One evaluation episode: a policy in the loop with the simulator, until success has held or time is up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from embodichain.contracts import Recipe, seed_range
from embodichain.encoders import Encoder
from embodichain.evaluation.policy import Policy
from embodichain.rollout import RolloutOptions, make_episode
from embodichain.rollout.episode import HOLD_STEPS
from tasks.session import TaskSession


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A seed that counts: the expert solved it in `expert_steps` control steps."""

    recipe: Recipe
    expert_steps: int


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """How a policy did on one seed.

    Attributes:
        seed: the recipe's seed.
        success: the task's predicate held at rest for 10 control steps within the limit.
        progress: the largest progress reached, in [0, 1].
        steps: control steps executed.
        finite: False if the policy put out a non-finite action, which ends the episode as a failure.
    """

    seed: int
    success: bool
    progress: float
    steps: int
    finite: bool = True


def expert_lengths(
    session: TaskSession, encoder: Encoder, recipes: list[Recipe], known: dict[int, int]
) -> dict[int, int]:
    """Control steps the expert needs for each recipe's seed; 0 where it fails, so that the seed does not count.

    `known` (seed -> steps) saves trying a seed twice: the expert is the same for every checkpoint.
    """
    lengths = {}
    for recipe in recipes:
        if recipe.seed in known:
            lengths[recipe.seed] = known[recipe.seed]
            continue
        episode, verdict, _ = make_episode(recipe, session, encoder, RolloutOptions(tau=1))
        lengths[recipe.seed] = episode.pairs if episode is not None and verdict.accepted else 0
    return lengths


def eval_recipes(task: str, domain: str, indices: Iterable[int], sim_hash: str, seeds: str = "eval") -> list[Recipe]:
    """Recipes of the seed range called `seeds`, by index."""
    return [Recipe(task=task, seed=seed_range(seeds).at(i), domain=domain, sim_hash=sim_hash) for i in indices]


def run_trial(
    session: TaskSession,
    encoder: Encoder,
    policy: Policy,
    trial: Trial,
    step_limit_ratio: float,
    frames: list[np.ndarray] | None = None,
    frame_every: int = 2,
) -> TrialResult:
    """Run one closed-loop episode; append a rendered frame every `frame_every` steps to `frames` if given.

    The step limit is `step_limit_ratio` times the expert's length on this very seed.

    Raises:
        ValueError: the policy was trained on another encoder's tokens.
    """
    if policy.encoder_id != encoder.id:
        raise ValueError(
            f"the policy was trained on encoder {policy.encoder_id!r}, this run encodes with {encoder.id!r}"
        )
    observation = session.reset(trial.recipe)
    policy.reset(session.instruction)
    token_mask = encoder.token_mask(observation)
    limit = int(np.ceil(trial.expert_steps * step_limit_ratio))
    held, best, step = 0, 0.0, 0
    if frames is not None:
        frames.append(session.render_frame())
    while step < limit:
        if encoder.needs_rgb:
            observation = session.observe(rgb=True)
        chunk = policy.step(encoder.encode(observation), token_mask, observation.proprio)
        if not np.isfinite(chunk).all():
            return TrialResult(seed=trial.recipe.seed, success=False, progress=best, steps=step, finite=False)
        for action in chunk[: policy.replan]:
            observation = session.step(action)
            step += 1
            if frames is not None and step % frame_every == 0:
                frames.append(session.render_frame())
            status = session.status()
            best = max(best, status.progress)
            held = held + 1 if status.success else 0
            if held >= HOLD_STEPS:
                return TrialResult(seed=trial.recipe.seed, success=True, progress=1.0, steps=step)
            if step >= limit:
                break
    return TrialResult(seed=trial.recipe.seed, success=False, progress=best, steps=step)
