"""From single trials to a row of the table: rate, interval, progress."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from embodichain.contracts import wilson_interval
from embodichain.evaluation.closed_loop import TrialResult
from tasks.domain import parse_domain
from tasks.registry import task_info


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """Success of one checkpoint on one task.

    Attributes:
        task, split, domain: what was scored; for `split` see `split_of`.
        n: seeds that count (the expert solved them).
        rate, low, high: success rate and its Wilson 95 % interval.
        progress: mean of the largest progress reached, in [0, 1].
        left_out: seeds not counted, because the expert failed on them.
        learner_step: step of the checkpoint.
        latency_steps: mean control steps from an observation to the first action of the chunk that uses it.
        held_share: share of the control steps in which the robot waited for a chunk.
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
    latency_steps: float = 0.0
    held_share: float = 0.0

    def to_dict(self) -> dict[str, object]:
        """A JSON-able row."""
        return asdict(self)


def split_of(task: str, domain: str) -> str:
    """What training has never seen of these scores, beside their seeds.

    `heldout_tasks` for a family that is held out, else `heldout_scenes`, `heldout_combinations` or `heldout_language`
    by the domain's side, else `heldout_seeds`.
    """
    if task_info(task).split == "heldout":
        return "heldout_tasks"
    return f"heldout_{parse_domain(domain).heldout or 'seeds'}"


def score(task: str, domain: str, results: list[TrialResult], left_out: int, learner_step: int) -> TaskScore:
    """Summarise `results`. Raises `ValueError` if there are none: a rate over nothing is no rate."""
    if not results:
        raise ValueError(f"no seed of {task!r} counts: the expert failed on all {left_out}")
    successes = sum(result.success for result in results)
    low, high = wilson_interval(successes, len(results))
    return TaskScore(
        task=task,
        split=split_of(task, domain),
        domain=domain,
        n=len(results),
        rate=successes / len(results),
        low=low,
        high=high,
        progress=float(np.mean([result.progress for result in results])),
        left_out=left_out,
        learner_step=learner_step,
        latency_steps=float(np.average([r.latency_steps for r in results], weights=[r.chunks or 1 for r in results])),
        held_share=sum(r.held for r in results) / max(1, sum(r.steps for r in results)),
    )
