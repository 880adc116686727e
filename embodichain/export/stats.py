"""Statistics that LeRobot normalises by: of each feature per episode, and of all episodes together.

Keys as there: `min`, `max`, `mean`, `std`, `count` and the quantiles `q01 q10 q50 q90 q99`. As there, the quantiles of
a whole dataset are the count-weighted means of its episodes'; everything else is exact.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats: TypeAlias = dict[str, np.ndarray]


def vector_stats(values: np.ndarray) -> Stats:
    """Of `[n]` or `[n, d]` numbers or bools: f64[1] or f64[d] each, `count` i64[1]."""
    rows = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    return {
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "mean": rows.mean(axis=0),
        "std": rows.std(axis=0),
        "count": np.array([len(rows)]),
        **dict(zip(QUANTILES, np.quantile(rows, list(QUANTILES.values()), axis=0), strict=True)),
    }


def image_stats(frames: np.ndarray) -> Stats:
    """Of u8[n, H, W, 3], every pixel, in [0, 1]: f64[3, 1, 1] each, `count` i64[1] = n frames."""
    levels = np.arange(256) / 255.0
    histogram = np.stack([np.bincount(frames[..., c].ravel(), minlength=256) for c in range(3)]).astype(np.float64)
    share = histogram / histogram.sum(axis=1, keepdims=True)
    mean = share @ levels
    present = histogram > 0
    below = np.cumsum(share, axis=1)
    stats = {
        "min": levels[present.argmax(axis=1)],
        "max": levels[255 - present[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(share @ levels**2 - mean**2, 0.0)),
        # The last bin's sum may fall short of 1 by rounding.
        **{name: levels[(below < q - 1e-12).sum(axis=1)] for name, q in QUANTILES.items()},
    }
    return {**{name: value.reshape(3, 1, 1) for name, value in stats.items()}, "count": np.array([len(frames)])}


class TotalStats:
    """Statistics of all episodes so far, from those of each."""

    def __init__(self) -> None:
        self._total: dict[str, Stats] = {}

    def add(self, episode: dict[str, Stats]) -> None:
        """One episode's statistics, by feature."""
        for key, stats in episode.items():
            self._total[key] = _merge(self._total[key], stats) if key in self._total else stats

    def as_lists(self) -> dict[str, dict[str, list]]:
        """By feature, as JSON-able lists."""
        return {key: {name: value.tolist() for name, value in stats.items()} for key, stats in self._total.items()}


def _merge(one: Stats, other: Stats) -> Stats:
    count = one["count"] + other["count"]
    share = float(other["count"][0] / count[0])
    step = other["mean"] - one["mean"]
    variance = (1 - share) * one["std"] ** 2 + share * other["std"] ** 2 + share * (1 - share) * step**2
    return {
        "min": np.minimum(one["min"], other["min"]),
        "max": np.maximum(one["max"], other["max"]),
        "mean": one["mean"] + share * step,
        "std": np.sqrt(variance),
        "count": count,
        **{name: (1 - share) * one[name] + share * other[name] for name in QUANTILES},
    }
