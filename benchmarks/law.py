"""How often the analysis says what is true: made-up sweeps with known laws, judged by the default plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from embodichain.contracts import wilson_interval
from embodichain.law import Analysis, Plan, analyse
from embodichain.law.fakes import Sweep, synthetic_cells

TRUTH = {"null": "no_effect", "data": "data_size", "power": "law", "hinge": "law"}
ALPHA, E_STAR = 0.5, 16.0  # of the worlds `power` and `hinge`


def run(
    sweeps: int, seeds: int, sigma: float, resamples: int, step: Callable[[], object]
) -> Iterator[dict[str, object]]:
    """One row per world: `sweeps` sweeps of 6 levels of E x `seeds` training seeds, with a matched-D arm."""
    plan = Plan(shares=(1.0,), resamples=resamples, permutations=2000)
    for world in TRUTH:
        shape = Sweep(world=world, sizes=(400_000,), shares=(1.0,), seeds=seeds, sigma=sigma, trials=0)
        found = []
        for number in range(sweeps):
            found.append(analyse(synthetic_cells(shape, number), plan))
            step()
        yield {"world": world, "n": sweeps, "seeds": seeds, "sigma": sigma, **_row(world, found)}


def _row(world: str, found: list[Analysis]) -> dict[str, object]:
    names = Counter(each.verdict.name for each in found if each.verdict is not None)
    right = names[TRUTH[world]]
    low, high = wilson_interval(right, len(found))
    first = [each.primary[0] for each in found]
    stars = [result.comparison.threshold for result in first if result.has_threshold and result.comparison]
    fits = [result.comparison.fits["plain"].parameters["alpha"] for result in first if result.comparison]
    coverage = [result.holdout.coverage for result in first if result.holdout and result.holdout.possible]
    return {
        "verdicts": dict(names),
        "right": right / len(found),
        "low": low,
        "high": high,
        "false_laws": names["law"] if TRUTH[world] != "law" else 0,
        "thresholds": len(stars),
        "E_star_inside": sum(s is not None and s.low <= E_STAR <= s.high for s in stars) if world == "hinge" else None,
        "alpha_inside": sum(a <= ALPHA <= b for _, a, b in fits) if world == "power" else None,
        "unseen_inside": float(np.mean(coverage)) if coverage else None,
    }
