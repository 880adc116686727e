"""Metric names with their units, and the buffer that metrics wait in before they are written.

One catalogue, so that whoever measures, the MLflow page and the report mean the same thing by a name. No
MLflow here: a `MetricBuffer` takes numbers and hands on batches of `MetricPoint`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

METRIC_UNITS: Mapping[str, str] = MappingProxyType(
    {
        "generation/generated": "episodes",
        "generation/accepted": "episodes",
        "generation/rejected": "episodes",
        "generation/acceptance": "fraction",
        "generation/episodes_per_min": "accepted episodes / min",
        "generation/actor_idle_fraction": "fraction",
        "replay/fresh_pairs_per_s": "pairs / s",
        "replay/inserted_pairs_per_s": "pairs / s",
        "replay/experience_throughput": "first-use pairs / learner step",
        "replay/reuse_mean": "uses / pair",
        "replay/reuse_max": "uses / pair",
        "replay/reuse_bound": "uses / pair",
        "replay/sample_age_s": "s",
        "replay/episodes": "episodes held",
        "replay/pairs": "pairs held",
        "learner/loss": "loss",
        "learner/loss_video": "loss",
        "learner/loss_action": "loss",
        "learner/grad_norm": "norm",
        "learner/learning_rate": "1",
        "learner/steps_per_s": "steps / s",
        "learner/windows_per_s": "windows / s",
        "learner/stall_fraction": "fraction",
        "heldout/action_error": "rad, or m with tool control",
        "heldout/input_blind_error": "as heldout/action_error",
        "faults/total": "faults",
        "experience_throughput": "first-use pairs / learner step, whole run",
        "heldout_error": "as heldout/action_error, last checkpoint",
        "success": "fraction, mean over tasks, last checkpoint",
        "core_seconds": "s of processor time, learner and simulators",
    }
)
_SUCCESS = "success"
_HELDOUT_ERROR = "heldout/action_error"
_SUCCESS_UNITS = {"rate": "fraction", "low": "fraction", "high": "fraction", "progress": "fraction", "n": "seeds"}


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricPoint:
    """One value of one metric.

    Attributes:
        name: slash-separated, for example `learner/loss_action`.
        value: the number; NaN and infinities are kept, since they are findings.
        step: learner step it belongs to, >= 0.
        t: seconds since the epoch.
    """

    name: str
    value: float
    step: int
    t: float


def success_metrics(row: Mapping[str, object]) -> dict[str, float]:
    """Metrics of one row of the success table (`task`, `split`, `domain`, `rate`, `low`, `high`, `n`, ...).

    Names are `success/<task>/<split>/<domain>/<figure>`.
    """
    prefix = "/".join([_SUCCESS, str(row["task"]), str(row["split"]), metric_part(str(row["domain"]))])
    return {f"{prefix}/{name}": float(str(row[name])) for name in _SUCCESS_UNITS if row.get(name) is not None}


def error_metrics(by_domain: Mapping[str, float | None]) -> dict[str, float]:
    """Held-out action errors by domain, where there are several: `heldout/action_error/<domain>`; none for a None."""
    several = by_domain if len(by_domain) > 1 else {}
    known = {domain: error for domain, error in several.items() if error is not None}
    return {f"{_HELDOUT_ERROR}/{metric_part(domain)}": error for domain, error in known.items()}


def metric_part(domain: str) -> str:
    """`spatial+visual@scenes` -> `spatial.visual:scenes`: MLflow refuses a batch of metrics for one `+` in a name."""
    return domain.replace("+", ".").replace("@", ":")


def unit_of(name: str) -> str:
    """The unit of a metric; an empty string for a name that the catalogue does not know."""
    if name.startswith(f"{_SUCCESS}/"):
        return _SUCCESS_UNITS.get(name.rsplit("/", maxsplit=1)[-1], "")
    if name.startswith(f"{_HELDOUT_ERROR}/"):
        name = _HELDOUT_ERROR
    return METRIC_UNITS.get(name, "")


class MetricBuffer:
    """A bounded queue of metric points: oldest first, the oldest dropped (and counted) when it is full.

    Not thread-safe; its owner holds the lock.

    Attributes:
        dropped: points lost to the bound so far.
    """

    def __init__(self, *, capacity: int = 100_000) -> None:
        """Raises `ValueError` if `capacity` is below 1."""
        if capacity < 1:
            raise ValueError(f"capacity={capacity}: expected at least 1")
        self._points: deque[MetricPoint] = deque()
        self._capacity = capacity
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._points)

    def add(self, values: Mapping[str, float], *, step: int, t: float) -> None:
        """Queue one point per entry. Raises `ValueError` for a negative step or a value that is no number."""
        if step < 0:
            raise ValueError(f"step={step}: expected a learner step >= 0")
        points = []
        for name, value in values.items():
            try:
                points.append(MetricPoint(name=name, value=float(value), step=int(step), t=float(t)))
            except (TypeError, ValueError) as error:
                raise ValueError(f"metric {name}={value!r}: expected a number") from error
        self._points.extend(points)
        self._trim()

    def take(self, limit: int) -> list[MetricPoint]:
        """Remove and return the oldest `limit` points, or all if there are fewer."""
        return [self._points.popleft() for _ in range(min(limit, len(self._points)))]

    def put_back(self, points: Iterable[MetricPoint]) -> None:
        """Return points that could not be written to the front, in their old order."""
        self._points.extendleft(reversed(list(points)))
        self._trim()

    def _trim(self) -> None:
        while len(self._points) > self._capacity:
            self._points.popleft()
            self.dropped += 1


def finite(points: Iterable[MetricPoint]) -> list[MetricPoint]:
    """The points that can be drawn, in step order (then in time order)."""
    return sorted((p for p in points if math.isfinite(p.value)), key=lambda p: (p.step, p.t))
