"""One evaluation episode: a policy in the loop with the simulator, until success has held or time is up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from embodichain.contracts import Policy, Recipe, Speculator, seed_range
from embodichain.encoders import Encoder
from embodichain.evaluation.realtime import Mind, NotFinite, Robot, live
from embodichain.evaluation.timing import Stopwatch, Timing
from embodichain.rollout import RolloutOptions, make_episode
from tasks.session import TaskSession

AT_ONCE = Timing()  # chunks take no time
MOST_TRIED = 3  # times the seeds asked for: an expert that fails on two of three is no measure of anything


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
        held: those of the steps in which the robot waited for a chunk.
        chunks: chunks computed.
        latency_steps: mean over the chunks, in control steps, from the arrival of the observation to the first action
            of the chunk that uses it.
        latency_s: mean wall time of the policy's answer to an observation, seconds; two results that differ in nothing
            else are equal.
    """

    seed: int
    success: bool
    progress: float
    steps: int
    finite: bool = True
    held: int = 0
    chunks: int = 0
    latency_steps: float = 0.0
    latency_s: float = field(default=0.0, compare=False)


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
    timing: Timing = AT_ONCE,
) -> TrialResult:
    """Run one closed-loop episode; append a rendered frame every `frame_every` steps to `frames` if given.

    The step limit is `step_limit_ratio` times the expert's length on this very seed; waiting counts.

    Raises:
        ValueError: the policy was trained on another encoder's tokens, or cannot speculate in mode `sai`.
    """
    if policy.encoder_id and policy.encoder_id != encoder.id:
        raise ValueError(
            f"the policy was trained on encoder {policy.encoder_id!r}, this run encodes with {encoder.id!r}"
        )
    if timing.mode == "sai" and not isinstance(policy, Speculator):
        raise ValueError("mode=sai: this policy cannot begin a chunk before it sees; expected one with `speculate`")
    observation = session.reset(trial.recipe)
    policy.reset(session.instruction)
    limit = int(np.ceil(trial.expert_steps * step_limit_ratio))
    robot = Robot(session=session, observation=observation, limit=limit, frames=frames, frame_every=frame_every)
    if frames is not None:
        frames.append(session.render_frame())
    mind = Mind(policy, encoder, robot, Stopwatch(timing, session.control_hz))
    finite = True
    try:
        live(robot, mind, policy.replan, timing)
    except NotFinite:
        finite = False
    return TrialResult(
        seed=trial.recipe.seed,
        success=robot.success,
        progress=1.0 if robot.success else robot.best,
        steps=robot.steps,
        finite=finite,
        held=robot.held,
        chunks=len(mind.waits),
        latency_steps=float(np.mean(mind.waits)) if mind.waits else 0.0,
        latency_s=float(np.mean(mind.seconds)) if mind.seconds else 0.0,
    )
