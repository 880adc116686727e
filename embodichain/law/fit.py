"""Many weighted fits of one curve at once: bounded Levenberg-Marquardt over a batch.

Owns: the likelihoods and their maximisation. Takes: a `Curve`, data, weights. A bootstrap is a batch of weights, a
cross-validation a batch of zeros; a thousand fits take about a second, without a loop in Python over them.

Noise: `error`: log L is normal around the curve (errors vary by a factor). `success`: k of n is binomial around it,
its variance inflated by phi >= 1 where training seeds differ by more than evaluation seeds explain (quasi-binomial;
McCullagh and Nelder, "Generalized Linear Models", 2nd ed., chapter 4.5; for equal n the beta-binomial's variance).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodichain.law.curves import Array, Curve

ITERATIONS = 50
TOLERANCE = 1e-7
EDGE = 1e-4  # p is kept this far from 0 and 1 in likelihoods
CHUNK = 4096  # fits done at once


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a curve is fitted to.

    Attributes:
        kind: `error` or `success`.
        y: f64[..., n], log L, or rates in [0, 1].
        trials: f64[n], seeds behind each rate; ones for errors.
    """

    kind: str
    y: Array
    trials: Array

    @property
    def n(self) -> int:
        """Points."""
        return self.y.shape[-1]


def fit(curve: Curve, data: Data, weights: Array, starts: Array | None = None) -> tuple[Array, Array]:
    """Maximise the weighted likelihood for every row of `weights`, from several starts.

    Args:
        curve: what to fit.
        data: `y` is f64[n], or f64[B, n] for data that differ between the fits.
        weights: f64[B, n], >= 0.
        starts: f64[S, p]; default: the curve's own.

    Returns:
        theta f64[B, p], and f64[B]: half the weighted sum of squares (error), or minus the weighted log-likelihood
        without its constant (success).
    """
    starts = curve.starts if starts is None else np.clip(starts, curve.low, curve.high)
    y = np.broadcast_to(data.y, weights.shape)
    best, least = np.empty((len(weights), curve.size)), np.full(len(weights), np.inf)
    rows = max(1, CHUNK // len(starts))
    for first in range(0, len(weights), rows):
        part = slice(first, first + rows)
        count = len(weights[part])
        theta = np.repeat(starts[None], count, axis=0).reshape(-1, curve.size)
        theta, cost = _descend(
            curve, data, theta, np.repeat(y[part], len(starts), axis=0), np.repeat(weights[part], len(starts), axis=0)
        )
        cost = cost.reshape(count, len(starts))
        pick = cost.argmin(axis=1)
        best[part] = theta.reshape(count, len(starts), -1)[np.arange(count), pick]
        least[part] = cost[np.arange(count), pick]
    return best, least


def _descend(curve: Curve, data: Data, theta: Array, y: Array, weights: Array) -> tuple[Array, Array]:
    """Damped Gauss-Newton (Fisher scoring) within the box, each row until it stops improving."""
    cost = _cost(curve.value(theta), data, y, weights)
    damping = np.full(len(theta), 1e-2)
    active = np.arange(len(theta))
    for _ in range(ITERATIONS):
        now, value_slope = theta[active], curve.value_and_slope(theta[active])
        step = _step(curve, data, now, *value_slope, y[active], weights[active], damping[active])
        tried = np.clip(now + step, curve.low, curve.high)
        new = _cost(curve.value(tried), data, y[active], weights[active])
        better = new < cost[active]
        gain = cost[active] - new
        moved = active[better]
        theta[moved], cost[moved] = tried[better], new[better]
        damping[active] = np.where(better, damping[active] * 0.3, damping[active] * 4.0)
        settled = (better & (gain < TOLERANCE * (1e-3 + np.abs(new)))) | (~better & (damping[active] > 1e8))
        active = active[~settled]
        if not len(active):
            break
    return theta, cost


def _step(
    curve: Curve, data: Data, theta: Array, value: Array, slope: Array, y: Array, weights: Array, damping: Array
) -> Array:
    information = weights * _information(value, data)
    gradient = np.einsum("bnp,bn->bp", slope, information * (y - value))
    hessian = np.einsum("bnp,bn,bnq->bpq", slope, information, slope)
    # A parameter at its bound whose gradient points outwards stays there.
    stuck = ((theta <= curve.low) & (gradient < 0)) | ((theta >= curve.high) & (gradient > 0))
    gradient = np.where(stuck, 0.0, gradient)
    free = (~stuck).astype(float)
    hessian = hessian * free[:, :, None] * free[:, None, :]
    scale = np.einsum("bpp->bp", hessian)
    scale = np.maximum(scale, 1e-8 * scale.max(axis=1, keepdims=True) + 1e-12)
    hessian = hessian + (damping[:, None] * scale + 1e-12 + (1.0 - free))[:, :, None] * np.eye(curve.size)
    return np.clip(np.linalg.solve(hessian, gradient[..., None])[..., 0], -2.0, 2.0)


def _information(value: Array, data: Data) -> Array:
    if data.kind == "error":
        return np.ones_like(value)
    p = np.clip(value, EDGE, 1 - EDGE)
    return data.trials / (p * (1 - p))


def _cost(value: Array, data: Data, y: Array, weights: Array) -> Array:
    if data.kind == "error":
        return np.asarray(0.5 * (weights * (y - value) ** 2).sum(axis=1))
    p = np.clip(value, EDGE, 1 - EDGE)
    return np.asarray(-(weights * data.trials * (y * np.log(p) + (1 - y) * np.log1p(-p))).sum(axis=1))


def dispersion(curve: Curve, data: Data, theta: Array) -> float:
    """sigma^2 of log L (unbiased), or phi >= 1 of the success counts (Pearson's statistic per degree of freedom)."""
    value = curve.value(theta[None])[0]
    free = max(1, data.n - curve.size)
    pearson = float((_information(value, data) * (data.y - value) ** 2).sum() / free)
    return pearson if data.kind == "error" else max(1.0, pearson)


def deviance(curve: Curve, data: Data, theta: Array) -> float:
    """-2 log-likelihood at the maximum: of a normal with its own variance, or of binomial counts."""
    cost = float(_cost(curve.value(theta[None]), data, data.y[None], np.ones((1, data.n)))[0])
    if data.kind == "error":
        return data.n * float(np.log(max(2.0 * cost / data.n, 1e-300)) + np.log(2 * np.pi) + 1.0)
    return 2.0 * cost


def aicc(curve: Curve, data: Data, theta: Array, phi: float = 1.0) -> float:
    """Akaike's criterion with its small-sample term; for counts the quasi-likelihood's, with a common `phi`.

    `AICc = D / phi + 2K + 2K(K + 1) / (n - K - 1)`, D = -2 log L, K = parameters and one for the noise (Burnham and
    Anderson, "Model Selection and Multimodel Inference", 2nd ed., sections 2.4 and 2.5). Infinite if n <= K + 1.
    """
    k = curve.size + 1
    if data.n <= k + 1:
        return float("inf")
    return deviance(curve, data, theta) / phi + 2 * k + 2 * k * (k + 1) / (data.n - k - 1)


def prediction_sd(curve: Curve, data: Data, theta: Array, weights: Array, noise: float) -> Array:
    """f64[B, n]: standard error of one new run at each point, from B fits; noise and parameters both.

    Delta method: `noise / information + J cov J'`, cov = noise (J' W J)^-1 over the fit's own points.
    """
    value, slope = curve.value_and_slope(theta)
    information = _information(value, data)
    hessian = np.einsum("bnp,bn,bnq->bpq", slope, weights * information, slope)
    cov = np.linalg.pinv(hessian, rcond=1e-6, hermitian=True)
    spread = np.einsum("bnp,bpq,bnq->bn", slope, cov, slope)
    return np.sqrt(noise * (1.0 / information + spread))
