"""A checkpoint, a simulator and seeds that count: what the closed-loop benchmarks of the policy runtime share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from embodichain.app.components import make_encoder, make_session
from embodichain.app.config import RunConfig
from embodichain.contracts import Policy
from embodichain.contracts.intervals import wilson_interval
from embodichain.encoders import Encoder
from embodichain.evaluation.closed_loop import MOST_TRIED, Trial, TrialResult, eval_recipes, expert_lengths, run_trial
from embodichain.evaluation.timing import Timing
from learner.checkpoint import load_model
from learner.train_step import Model
from tasks.session import TaskSession, sim_hash


@dataclass(kw_only=True)
class Scored:
    """Everything that closed-loop trials of one checkpoint need, in this process.

    Attributes:
        model: in evaluation mode. `session`, `encoder`: the run's own.
    """

    config: RunConfig
    model: Model
    session: TaskSession
    encoder: Encoder

    @classmethod
    def load(cls, config: RunConfig, checkpoint: str) -> Scored:
        """Raises `ValueError` for a folder that is no whole checkpoint, or one of another encoder."""
        encoder = make_encoder(config)
        model = load_model(checkpoint, encoder_id=encoder.id)
        return cls(config=config, model=model, session=make_session(config, render=False), encoder=encoder)

    def trials(self, task: str, seeds: int) -> list[Trial]:
        """The first `seeds` seeds of the run's scoring range that the expert solves."""
        found: list[Trial] = []
        for trial in self._all_trials(task, range(MOST_TRIED * seeds)):
            found.append(trial)
            if len(found) == seeds:
                return found
        raise RuntimeError(f"{task}: the expert solves only {len(found)} of {MOST_TRIED * seeds} seeds")

    def _all_trials(self, task: str, indices: Iterable[int]) -> Iterator[Trial]:
        settings = self.config.evaluation
        for index in indices:
            (recipe,) = eval_recipes(task, self.config.domain, [index], sim_hash(), settings.seed_range)
            steps = expert_lengths(self.session, self.encoder, [recipe], {})[recipe.seed]
            if steps:
                yield Trial(recipe=recipe, expert_steps=steps)

    def run(self, policy: Policy, trial: Trial, timing: Timing, slack: float = 1.0) -> TrialResult:
        """One trial; the run's step limit times `slack`."""
        ratio = self.config.evaluation.step_limit_ratio * slack
        return run_trial(self.session, self.encoder, policy, trial, ratio, timing=timing)


def success_row(results: list[TrialResult], reference: list[TrialResult] | None = None) -> dict[str, object]:
    """Rate with its Wilson interval; against a reference on the same seeds: points lost, and who alone succeeded."""
    n, won = len(results), [result.success for result in results]
    low, high = wilson_interval(sum(won), n)
    row: dict[str, object] = {
        "n": n,
        "success": sum(won) / n,
        "low": low,
        "high": high,
        "progress": float(np.mean([result.progress for result in results])),
    }
    if reference is not None:
        before = [result.success for result in reference]
        if [r.seed for r in reference] != [r.seed for r in results]:
            raise ValueError("paired seeds: the two sides were run on different ones")
        row |= {
            "points_lost": 100.0 * (sum(before) - sum(won)) / n,
            "lost_seeds": sum(b and not w for b, w in zip(before, won, strict=True)),
            "won_seeds": sum(w and not b for b, w in zip(before, won, strict=True)),
        }
    return row
