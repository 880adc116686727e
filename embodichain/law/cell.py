"""What the analysis knows of one finished run. Owns: the data types. Hands on: plain frozen objects, no files.

A *cell* is a run with its place in a sweep; a *reading* is what one of its checkpoints scored, with what had been spent
by then. A run at a constant fresh rate therefore gives a reading at half of its budget and one at the whole of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

Scalar = bool | int | float | str | None


class LawError(ValueError):
    """The runs, or the plan, do not allow the analysis; the message is one line."""


# Of a run's `evaluation`: what scores must have in common to be compared; fields of `Protocol`.
SCORING = ("seed_range", "seeds", "step_limit_ratio", "replan", "heldout_episodes")


@dataclass(frozen=True, kw_only=True)
class SuccessRow:
    """Closed-loop success of one checkpoint on one task.

    Attributes:
        task, split, domain: what was scored (`split` as in `summary.json`: `heldout_seeds`, `heldout_scenes`, ...).
        k, n: seeds solved, and seeds that count.
        left_out: seeds not counted because the expert failed on them.
        outcomes: (evaluation seed, solved) of every seed that counts; empty if only the counts are known.
    """

    task: str
    split: str
    domain: str
    k: int
    n: int
    left_out: int = 0
    outcomes: tuple[tuple[int, bool], ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.k <= self.n:
            raise LawError(f"success on {self.task}: k={self.k} of n={self.n}; expected 0 <= k <= n")
        if self.outcomes and (len(self.outcomes) != self.n or sum(ok for _, ok in self.outcomes) != self.k):
            raise LawError(
                f"success on {self.task}: {len(self.outcomes)} outcomes do not add up to {self.k} of {self.n}"
            )

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes rows of different runs comparable."""
        return self.task, self.split, self.domain


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one checkpoint scored.

    Attributes:
        step: learner steps so far (S).
        share: share of the run's budget spent, in (0, 1].
        unique_pairs: state-action pairs first used so far (D), counted.
        pair_uses: uses of pairs so far.
        core_seconds: CPU core-seconds so far, generation included; None: not known.
        error: held-out action error in the cell's `unit`; None: not measured. `errors`: the same by scored domain.
        success: closed-loop rows; empty: not scored.
    """

    step: int
    share: float = 1.0
    unique_pairs: float
    pair_uses: float | None = None
    core_seconds: float | None = None
    error: float | None = None
    errors: dict[str, float] = field(default_factory=dict)
    success: tuple[SuccessRow, ...] = ()

    @property
    def throughput(self) -> float:
        """Experience throughput E: unique pairs per learner step, counted."""
        return self.unique_pairs / self.step if self.step else math.nan


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How runs were scored. Cells are compared only if theirs are equal.

    Attributes:
        encoder: `state` (privileged) or `dinov3`.
        seed_range: range of the evaluation seeds.
        seeds: seeds per task for the last checkpoint.
        step_limit_ratio: step limit as a multiple of the expert's length.
        replan: control steps executed per chunk.
        heldout_episodes: episodes per task in the held-out set.
        domains: (task, split, domain) of every success row of the last checkpoint, sorted.
        unit: of the held-out error.
    """

    encoder: str = ""
    seed_range: str = ""
    seeds: int | None = None
    step_limit_ratio: float | None = None
    replan: int | None = None
    heldout_episodes: int | None = None
    domains: tuple[tuple[str, str, str], ...] = ()
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run.

    Attributes:
        name: of the run.
        path: its folder (or `FILE:LINE` of a table).
        arm: `stream`, `static`, `matched_d` (the same episodes, all there from step 0), or a name of the sweep's own.
        values: config keys that vary between the runs, seed excluded.
        seed: training seed.
        status: `done`, `stopped`, `failed`, ...; only `done` is analysed.
        readings: in order of steps; the last one is the run's result.
        model: network kind. `parameters`: P, trainable parameters; None: not known.
        mode: `stream` or `static`. `reuse_bound`: None in mode `static`. `reuse_max`: counted.
        error_first, input_blind: held-out error of the first checkpoint, and of a model that ignores its input.
        protocol: how it was scored.
        generated_per_s: episodes per second while the learner learned. `nodes`: of the cluster that it ran on.
        stall_fraction: learner time waiting for data.
        mlflow_run_id, config_hash, code_version: where it came from.
        plan_hash: hash of the analysis plan when the sweep started this cell; empty: none.
    """

    name: str
    path: str
    arm: str = "stream"
    values: dict[str, Scalar] = field(default_factory=dict)
    seed: int = 0
    status: str = "done"
    readings: tuple[Reading, ...] = ()
    model: str = ""
    parameters: int | None = None
    mode: str = "stream"
    reuse_bound: float | None = None
    reuse_max: float | None = None
    error_first: float | None = None
    input_blind: float | None = None
    protocol: Protocol = field(default_factory=Protocol)
    generated_per_s: float | None = None
    nodes: int = 1
    stall_fraction: float | None = None
    mlflow_run_id: str | None = None
    config_hash: str = ""
    code_version: str = ""
    plan_hash: str = ""

    @property
    def final(self) -> Reading:
        """The last reading. Raises `LawError` if there is none."""
        if not self.readings:
            raise LawError(f"{self.path}: no reading; expected a run with at least one scored checkpoint")
        return self.readings[-1]

    @property
    def throughput(self) -> float:
        """E of the whole run."""
        return self.final.throughput
