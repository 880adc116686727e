"""Made-up sweeps with known answers, for tests and for trying a plan before a sweep is paid for.

`synthetic_cells` draws the runs of a throughput sweep in a world whose law is known. Error of a run:
`L = curve(...) * exp(sigma * normal)`; success on an evaluation seed: 1 where the seed's difficulty, the same for every
run, is below what the run can do.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from embodichain.law.cell import Cell, Protocol, Reading, SuccessRow

WORLDS: dict[str, Callable[[float, float, float], float]] = {
    # (E, D, size factor) -> held-out error, millimetres
    "null": lambda e, d, size: 6.0 / size,
    "power": lambda e, d, size: (2.0 + 12.0 * e**-0.5) / size,
    "hinge": lambda e, d, size: (1.0 + 12.0 * max(e, 16.0) ** -0.7) / size,
    "data": lambda e, d, size: (2.0 + 400.0 * d**-0.5) / size,
}
TASKS = ("handover", "pick_place", "two_arm_lift")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Shape of a made-up throughput sweep.

    Attributes:
        world: one of `WORLDS`; in `data` the matched-D arm does as well as the stream, elsewhere as the lowest E.
        levels: values of E. `seeds`: training seeds per cell. `sizes`: parameters of each network.
        steps: budgets; each makes runs of its own.
        sigma: noise of log error between training seeds. `jitter`: of the counted E.
        trials: evaluation seeds per task; 0: no success rows.
        outcomes: whether single outcomes are kept.
        matched: whether there is a matched-D arm.
        shares: shares of the budget with a reading.
    """

    world: str = "power"
    levels: Sequence[float] = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
    seeds: int = 3
    sizes: Sequence[int] = (400_000, 1_600_000)
    steps: Sequence[int] = (2000,)
    sigma: float = 0.05
    jitter: float = 0.01
    trials: int = 40
    outcomes: bool = True
    matched: bool = True
    shares: Sequence[float] = (0.5, 1.0)


def synthetic_cells(sweep: Sweep, seed: int = 0) -> list[Cell]:
    """The runs of a sweep, in a fixed order; equal arguments give equal cells."""
    rng = np.random.default_rng(seed)
    difficulty = {task: rng.random(sweep.trials) for task in TASKS}
    arms = ("stream", "matched_d") if sweep.matched else ("stream",)
    return [
        _cell(sweep, arm, level, steps, size, number, difficulty, rng)
        for size in sweep.sizes
        for steps in sweep.steps
        for level in sweep.levels
        for arm in arms
        for number in range(sweep.seeds)
    ]


def _cell(
    sweep: Sweep,
    arm: str,
    level: float,
    steps: int,
    size: int,
    seed: int,
    difficulty: dict[str, np.ndarray],
    rng: np.random.Generator,
) -> Cell:
    counted = level * math.exp(sweep.jitter * rng.standard_normal())
    factor = (size / min(sweep.sizes)) ** 0.1
    luck = sweep.sigma * rng.standard_normal()
    readings = []
    for share in sweep.shares:
        step = round(share * steps)
        fresh = counted if arm == "stream" or sweep.world in ("data", "null") else min(sweep.levels)
        error = WORLDS[sweep.world](fresh, counted * step, factor) * (2.0 / (1.0 + share)) * math.exp(luck)
        readings.append(
            Reading(
                step=step,
                share=share,
                unique_pairs=counted * step,
                pair_uses=256.0 * step,
                core_seconds=step * (0.1 * (size / 400_000) ** 0.5 + 0.001 * counted),
                error=error,
                success=_success(sweep, error, difficulty),
            )
        )
    name = f"{arm}-E{level:g}-S{steps}-P{size}-seed{seed}"
    return Cell(
        name=name,
        path=f"runs/{name}",
        arm=arm,
        values={"replay.fresh_per_step": level, "learner.steps": steps, "learner.network.width": size},
        seed=seed,
        readings=tuple(readings),
        model="clwm",
        parameters=size,
        mode="stream" if arm == "stream" else "static",
        reuse_bound=512.0 if arm == "stream" else None,
        reuse_max=256.0 / level,
        error_first=18.0,
        input_blind=17.6,
        protocol=Protocol(
            encoder="state",
            seed_range="eval",
            seeds=sweep.trials or None,
            domains=tuple((task, "heldout_seeds", "default") for task in TASKS) if sweep.trials else (),
            unit="mm",
        ),
        mlflow_run_id=hashlib.md5(name.encode()).hexdigest(),
        config_hash=name,
        code_version="0" * 12,
    )


def _success(sweep: Sweep, error: float, difficulty: dict[str, np.ndarray]) -> tuple[SuccessRow, ...]:
    """A seed is solved where its difficulty is below a smooth function of the error: 1 at 0 mm, about 0 at 10 mm."""
    skill = 1.0 / (1.0 + (error / 4.0) ** 3)
    rows = []
    for task in TASKS if sweep.trials else ():
        solved = difficulty[task] < skill
        rows.append(
            SuccessRow(
                task=task,
                split="heldout_seeds",
                domain="default",
                k=int(solved.sum()),
                n=sweep.trials,
                outcomes=tuple((3_000_000 + i, bool(ok)) for i, ok in enumerate(solved)) if sweep.outcomes else (),
            )
        )
    return tuple(rows)
