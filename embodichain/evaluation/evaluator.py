"""The evaluator process: picks up a checkpoint, scores blocks of held-out seeds, films some of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np

from embodichain.contracts import Batch, Policy, Recipe, WindowSpec
from embodichain.encoders import Encoder
from embodichain.evaluation.closed_loop import AT_ONCE, Trial, TrialResult, expert_lengths, run_trial
from embodichain.evaluation.heldout import make_heldout_episodes
from embodichain.evaluation.timing import Timing
from embodichain.replay.heldout import heldout_batch
from tasks.session import TaskSession


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """A block of seeds for one checkpoint.

    Attributes:
        checkpoint: path of the checkpoint.
        recipes: what to run.
        known_lengths: seed -> expert steps, from earlier blocks (0: does not count).
        step_limit_ratio: see `run_trial`.
        film: path of a video of the whole block, or None.
        film_every: control steps between video frames.
    """

    checkpoint: str
    recipes: tuple[Recipe, ...]
    known_lengths: dict[int, int]
    step_limit_ratio: float
    film: str | None = None
    film_every: int = 3


@dataclass(frozen=True, kw_only=True)
class EvalReply:
    """Results of a block; `lengths` has every seed of it, 0 where the expert failed."""

    results: tuple[TrialResult, ...]
    lengths: dict[int, int]
    seconds: float
    video: str | None = None


@dataclass(kw_only=True)
class EvaluatorParts:
    """What the app plugs into an evaluator; built inside its process.

    Attributes:
        session, encoder: the simulator (with a renderer where videos are wanted) and the run's encoder.
        load_policy: checkpoint path -> policy.
        heldout_error: (checkpoint path, held-out batch) -> errors in fixed units, None where one is not finite.
        timing: when chunks are computed and played.
    """

    session: TaskSession
    encoder: Encoder
    load_policy: Callable[[str], Policy]
    heldout_error: Callable[[str, Batch], dict[str, Any]]
    timing: Timing = AT_ONCE
    cache: dict[str, Policy] = field(default_factory=dict)


class Evaluator:
    """Plain evaluator; `EvaluatorActor` is the Ray actor around it."""

    def __init__(self, parts: EvaluatorParts) -> None:
        self._parts = parts
        self._heldout: dict[str, Batch] = {}

    def build_heldout(
        self,
        tasks: list[str],
        domains: Sequence[str],
        per_task: int,
        spec: WindowSpec,
        sim_hash: str,
        seeds: str = "heldout",
    ) -> int:
        """Make the fixed held-out sets, one per domain; returns their number of windows."""
        made = {}
        for domain in domains:
            episodes = make_heldout_episodes(
                self._parts.session, self._parts.encoder, tasks, domain, per_task, spec.tau, sim_hash, seeds
            )
            made[domain] = heldout_batch(episodes, spec)
        self._heldout = made  # all or none: an error over fewer domains must not pass for the whole
        return sum(batch.size for batch in self._heldout.values())

    def heldout_error(self, checkpoint: str) -> dict[str, Any]:
        """Errors of a checkpoint on the first domain's set, and `by_domain` the action error on every domain's.

        None where one is not finite. Raises `RuntimeError` before `build_heldout`.
        """
        if not self._heldout:
            raise RuntimeError("heldout_error before build_heldout")
        found = {domain: self._parts.heldout_error(checkpoint, batch) for domain, batch in self._heldout.items()}
        return {**next(iter(found.values())), "by_domain": {domain: each["action"] for domain, each in found.items()}}

    def evaluate(self, request: EvalRequest) -> EvalReply:
        """Score one block of seeds."""
        started = time.perf_counter()
        session, encoder = self._parts.session, self._parts.encoder
        lengths = expert_lengths(session, encoder, list(request.recipes), request.known_lengths)
        policy = self._policy(request.checkpoint)
        frames: list[np.ndarray] | None = [] if request.film else None
        results = [
            run_trial(
                session,
                encoder,
                policy,
                Trial(recipe=recipe, expert_steps=lengths[recipe.seed]),
                request.step_limit_ratio,
                frames,
                request.film_every,
                self._parts.timing,
            )
            for recipe in request.recipes
            if lengths[recipe.seed]
        ]
        if request.film and frames:
            write_video(Path(request.film), frames, session.control_hz / request.film_every)
        return EvalReply(
            results=tuple(results),
            lengths=lengths,
            seconds=time.perf_counter() - started,
            video=request.film if frames else None,
        )

    def _policy(self, checkpoint: str) -> Policy:
        if checkpoint not in self._parts.cache:
            self._parts.cache.clear()
            self._parts.cache[checkpoint] = self._parts.load_policy(checkpoint)
        return self._parts.cache[checkpoint]


def write_video(path: Path, frames: list[np.ndarray], fps: float) -> None:
    """Write u8[H, W, 3] frames as H.264, playable in a browser."""
    path.parent.mkdir(parents=True, exist_ok=True)
    imageio.imwrite(path, np.stack(frames), fps=fps, codec="libx264", pixelformat="yuv420p", macro_block_size=2)


class EvaluatorActor:
    """`Evaluator` in a process of its own (a Ray actor). The run makes a new one if it dies."""

    def __init__(self, build: Callable[[], EvaluatorParts], niceness: int = 0) -> None:
        """`build` runs in the actor's process and imports simulator and learner there."""
        if niceness:
            os.nice(niceness)
        self._evaluator = Evaluator(build())

    def ready(self) -> int:
        """The process id, once the simulator is up."""
        return os.getpid()

    def build_heldout(self, *args: Any, **kwargs: Any) -> int:
        """See `Evaluator.build_heldout`."""
        return self._evaluator.build_heldout(*args, **kwargs)

    def heldout_error(self, checkpoint: str) -> dict[str, Any]:
        """See `Evaluator.heldout_error`."""
        return self._evaluator.heldout_error(checkpoint)

    def evaluate(self, request: EvalRequest) -> EvalReply:
        """See `Evaluator.evaluate`."""
        return self._evaluator.evaluate(request)
