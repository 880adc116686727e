"""Intervals for success rates: what turns `k of n` into a claim."""

from __future__ import annotations

import math


def wilson_interval(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a binomial proportion.

    Unlike the normal approximation it stays inside [0, 1] and keeps a width at 0 of n and n of n.
    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22
    (1927), 209-212: `(p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)` with p = successes / n.

    Args:
        successes: k, 0 <= k <= n.
        n: independent trials; with n = 0 nothing is known and the interval is (0, 1).
        z: normal quantile; 1.96 gives 95 %.

    Returns:
        (low, high), each in [0, 1].

    Raises:
        ValueError: counts that cannot be, or a z that is not positive.
    """
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"successes={successes} of n={n}: expected 0 <= successes <= n")
    if z <= 0:
        raise ValueError(f"z={z}: expected more than 0")
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    shrink = 1.0 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high
