"""From single trials to a row of the table: rate, interval, progress."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from embodichain.evaluation.closed_loop import TrialResult
from embodichain.telemetry.stats import wilson_interval


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """Success of one checkpoint on one task.

    Attributes:
        task, split, domain: what was scored; `split` is `heldout_seeds` here.
        n: seeds that count (the expert solved them).
        rate, low, high: success rate and its Wilson 95 % interval.
        progress: mean of the largest progress reached, in [0, 1].
        left_out: seeds not counted, because the expert failed on them.
        learner_step: step of the checkpoint.
    """

    task: str
    split: str
    domain: str
    n: int
    rate: float
    low: float
    high: float
    progress: float
    left_out: int
    learner_step: int

    def to_dict(self) -> dict[str, object]:
        """A JSON-able row."""
        return asdict(self)


def score(task: str, domain: str, results: list[TrialResult], left_out: int, learner_step: int) -> TaskScore:
    """Summarise `results`. Raises `ValueError` if there are none: a rate over nothing is no rate."""
    if not results:
        raise ValueError(f"no seed of {task!r} counts: the expert failed on all {left_out}")
    successes = sum(result.success for result in results)
    low, high = wilson_interval(successes, len(results))
    return TaskScore(
        task=task,
        split="heldout_seeds",
        domain=domain,
        n=len(results),
        rate=successes / len(results),
        low=low,
        high=high,
        progress=float(np.mean([result.progress for result in results])),
        left_out=left_out,
        learner_step=learner_step,
    )
