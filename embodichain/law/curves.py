"""The curves that are fitted to performance over experience throughput, with their derivatives.

Owns: what each curve is and how far its parameters may go. Knows no data files and no noise (`law.fit`).

    none       L(E) = c                                           the same at every E
    power      L(E) = L_inf + A (E / E0)^(-alpha)                 the Efficiency Law; no threshold
    hinge      L(E) = L_inf + A (max(E, E*) / E0)^(-alpha)        better only above E*, the paper's tau(C, P)
    saturating p(E) = p_inf / (1 + (E50 / E)^gamma)               success; rises from 0 and saturates
    hinge_s    p(E) = p_inf / (1 + (E50 / max(E, E*))^gamma)      the same with a threshold

E0 is the geometric mean of the E measured, so that A and alpha are estimated nearly independently. `hinge` at E* = the
lowest E is `power`, so the two are nested. Errors are modelled as log L, success as a probability.

Shapes: B fits side by side, n points, p parameters.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ALPHA = (0.02, 2.0)  # exponents outside of it are a constant, or a step
SHARPNESS = (0.1, 5.0)
LOGIT = 7.0  # p within [0.001, 0.999]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One curve on a scale on which its parameters are free numbers within a box.

    Attributes:
        name: as in the module's list.
        kind: `error` (values are log L) or `success` (values are p).
        x: f64[n], log E. `origin`: log E0.
        low, high: f64[p], the box.
        starts: f64[S, p], where fits begin.
    """

    name: str
    kind: str
    x: Array
    origin: float
    low: Array
    high: Array
    starts: Array

    @property
    def size(self) -> int:
        """Number of parameters, p."""
        return len(self.low)

    @property
    def hinged(self) -> bool:
        """Whether the last parameter is log E*."""
        return self.name.startswith("hinge")

    def value(self, theta: Array, x: Array | None = None) -> Array:
        """f64[B, n]: log L or p at `x` (default: the data's) for parameters f64[B, p]."""
        return self.value_and_slope(theta, x)[0]

    def value_and_slope(self, theta: Array, x: Array | None = None) -> tuple[Array, Array]:
        """f64[B, n] and its derivatives f64[B, n, p]."""
        at = np.broadcast_to(self.x if x is None else x, (len(theta), len(self.x if x is None else x)))
        if self.name == "none":
            return _constant(theta, at, self.kind)
        above = np.ones_like(at)
        if self.hinged:
            hinge = theta[:, -1:]
            above = (at > hinge).astype(float)
            at = np.maximum(at, hinge)
        value, slopes, by_x = (_power if self.kind == "error" else _saturating)(theta, at - self.origin)
        if self.hinged:
            slopes.append(by_x * (1.0 - above))
        return value, np.stack(slopes, axis=-1)

    def natural(self, theta: Array) -> dict[str, Array]:
        """Parameter name -> f64[B], as in the equations of the module, A with E0 = 1."""
        if self.name == "none":
            return {"c": np.exp(theta[:, 0]) if self.kind == "error" else _logistic(theta[:, 0])}
        if self.kind == "error":
            alpha = np.exp(theta[:, 2])
            names = {
                "L_inf": np.exp(theta[:, 0]),
                "A": np.exp(np.clip(theta[:, 1] + alpha * self.origin, -300, 300)),
                "alpha": alpha,
            }
        else:
            half = np.exp(theta[:, 1] + self.origin)
            names = {"p_inf": _logistic(theta[:, 0]), "E50": half, "gamma": np.exp(theta[:, 2])}
        if self.hinged:
            names["E_star"] = np.exp(theta[:, 3])
        return names


def curves_for(kind: str, x: Array, y: Array) -> dict[str, Curve]:
    """The three curves for data: `none`, the one without a threshold and the one with it.

    Args:
        kind: `error` or `success`.
        x: f64[n], log E.
        y: f64[n], log L or success rates.
    """
    origin = float(x.mean())
    none = _none(kind, x, origin, y)
    plain = _power_curve(x, origin, y) if kind == "error" else _saturating_curve(x, origin, y)
    return {"none": none, "plain": plain, "hinge": _with_hinge(plain)}


def _none(kind: str, x: Array, origin: float, y: Array) -> Curve:
    start = float(y.mean()) if kind == "error" else _logit(float(np.clip(y.mean(), 3e-3, 1 - 3e-3)))
    width = 20.0 if kind == "error" else LOGIT + abs(start)
    return Curve(
        name="none",
        kind=kind,
        x=x,
        origin=origin,
        low=np.array([start - width]),
        high=np.array([start + width]),
        starts=np.array([[start]]),
    )


def _power_curve(x: Array, origin: float, y: Array) -> Curve:
    least, most, middle = float(y.min()), float(y.max()), float(y.mean())
    low = np.array([least - 7.0, least - 9.0, np.log(ALPHA[0])])
    high = np.array([most, most + 4.0, np.log(ALPHA[1])])
    starts = [
        [least + np.log(floor), middle + np.log(1.0 - 0.9 * floor), np.log(alpha)]
        for alpha in (0.1, 0.3, 0.8, 1.6)
        for floor in (0.01, 0.5, 0.95)
    ]
    return Curve(
        name="power",
        kind="error",
        x=x,
        origin=origin,
        low=low,
        high=high,
        starts=np.clip(np.array(starts), low, high),
    )


def _saturating_curve(x: Array, origin: float, y: Array) -> Curve:
    span = float(x.max() - x.min())
    low = np.array([-LOGIT, x.min() - origin - span - 1.0, np.log(SHARPNESS[0])])
    high = np.array([LOGIT, x.max() - origin + span + 1.0, np.log(SHARPNESS[1])])
    top = _logit(float(np.clip(y.max(), 0.02, 0.98)))
    starts = [
        [ceiling, half * span, np.log(sharp)]
        for ceiling in (top, top + 2.0)
        for half in (-0.5, 0.0, 0.5)
        for sharp in (0.4, 1.2, 3.5)
    ]
    return Curve(
        name="saturating",
        kind="success",
        x=x,
        origin=origin,
        low=low,
        high=high,
        starts=np.clip(np.array(starts), low, high),
    )


def _with_hinge(plain: Curve) -> Curve:
    """The same curve, flat below E*; E* from the lowest E to the second highest, started between the levels."""
    levels = np.unique(np.round(plain.x, 2))
    low, high = float(plain.x.min()), float(levels[-2]) if len(levels) > 2 else float(plain.x.max())
    between = [(a + b) / 2 for a, b in itertools.pairwise(levels[:-1])] or [low]
    few = plain.starts[:: max(1, len(plain.starts) // 4)]
    starts = [[*start, hinge] for hinge in between for start in few]
    return Curve(
        name="hinge" if plain.kind == "error" else "hinge_s",
        kind=plain.kind,
        x=plain.x,
        origin=plain.origin,
        low=np.append(plain.low, low),
        high=np.append(plain.high, high),
        starts=np.array(starts),
    )


def _constant(theta: Array, at: Array, kind: str) -> tuple[Array, Array]:
    level = theta[:, :1] + np.zeros_like(at)
    if kind == "error":
        return level, np.ones((*at.shape, 1))
    p = _logistic(level)
    return p, (p * (1 - p))[..., None]


def _power(theta: Array, z: Array) -> tuple[Array, list[Array], Array]:
    """log(L_inf + A exp(-alpha z)), its derivatives by (log L_inf, log A, log alpha), and by z."""
    alpha = np.exp(theta[:, 2:3])
    decay = theta[:, 1:2] - alpha * z
    value = np.logaddexp(theta[:, :1], decay)
    share = np.exp(decay - value)  # of the part that falls
    return value, [1.0 - share, share, -share * alpha * z], -share * alpha


def _saturating(theta: Array, z: Array) -> tuple[Array, list[Array], Array]:
    """p_inf logistic(gamma (z - log E50)), its derivatives by (logit p_inf, log E50, log gamma), and by z."""
    top, gamma = _logistic(theta[:, :1]), np.exp(theta[:, 2:3])
    rise = _logistic(gamma * (z - theta[:, 1:2]))
    steep = top * rise * (1.0 - rise)
    slopes = [top * (1.0 - top) * rise, -steep * gamma, steep * gamma * (z - theta[:, 1:2])]
    return top * rise, slopes, steep * gamma


def _logistic(z: Array) -> Array:
    result: Array = 0.5 * (1.0 + np.tanh(0.5 * z))
    return result


def _logit(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))
