"""No effect, a law without a threshold, or one with it: the comparison within one group of equal compute and size.

Owns: the three fits of a group, their intervals, and the evidence for a threshold E*: likelihood ratio with a reference
from data simulated under the law without one (E* is not identified there, so that no table applies; Davies, Biometrika
74 (1987), 33-43), AICc, and leave-one-level-out prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from embodichain.law.bootstrap import interval, resampled_rates, run_weights
from embodichain.law.curves import Array, Curve, curves_for
from embodichain.law.design import Point
from embodichain.law.fit import Data, aicc, deviance, dispersion, fit
from embodichain.law.plan import Plan

GRID = 60  # points along a drawn curve
MOST_SIMULATIONS = 400  # datasets under the law without a threshold


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """One curve, fitted.

    Attributes:
        name: as in `law.curves`. `theta`: its free parameters.
        parameters: name -> (estimate, low, high), in the units of the equations.
        at_bound: name -> share of resamples in which it ended at the edge of its box, where it is not identified.
        aicc: Akaike's criterion, small-sample; the lower, the better. `noise`: sigma of log error, or phi.
        explained: share of the variation of the levels' means (of log error, or rate) that it explains.
        left_out_seed, left_out_level: root mean square error of predicting one training seed's runs from the others',
            and a level of E from the other levels, in log error or in rate.
        grid, curve, low, high: f64[60], E, and the curve with its pointwise interval, in the metric's own unit.
        residuals: f64[n], of log error, or Pearson's of the rates.
    """

    name: str
    theta: Array
    parameters: dict[str, tuple[float, float, float]]
    at_bound: dict[str, float]
    aicc: float
    noise: float
    explained: float
    left_out_seed: float
    left_out_level: float
    grid: Array
    curve: Array
    low: Array
    high: Array
    residuals: Array


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Evidence for E*.

    Attributes:
        p: that the hinge beats the law without a threshold by so much where there is none.
        estimate, low, high: E*, unique pairs per step.
        aicc_gain: the law's AICc minus the hinge's.
        left_out_gain: by how much the hinge predicts left-out seeds' runs better; a share of the law's own error.
        levels_below, levels_above: measured levels on either side of the estimate.
    """

    p: float
    estimate: float
    low: float
    high: float
    aicc_gain: float
    left_out_gain: float
    levels_below: int
    levels_above: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All three curves of a group, and what speaks for a threshold."""

    kind: str
    data: Data
    curves: dict[str, Curve] = field(repr=False)
    fits: dict[str, Fitted]
    threshold: Threshold | None


def data_of(points: Sequence[Point], kind: str) -> tuple[Array, Data]:
    """Log E, and log errors or success rates, of a group's points."""
    x = np.array([point.x for point in points])
    if kind == "error":
        y, trials = np.array([point.y for point in points]), np.ones(len(points))
    else:
        y = np.array([point.k / point.n for point in points])
        trials = np.array([float(point.n) for point in points])
    return x, Data(kind=kind, y=y, trials=trials)


def compare(
    points: Sequence[Point], kind: str, plan: Plan, rng: np.random.Generator, *, threshold: bool = True
) -> Comparison:
    """Fit the three curves to a group's points and weigh them.

    Args:
        points: of the stream arm, with the metric.
        kind: `error` or `success`.
        plan: `alpha`, `split`, `resamples`.
        rng: for resamples and simulations.
        threshold: whether to weigh the hinge against the law; without any effect there is nothing to weigh.
    """
    x, data = data_of(points, kind)
    curves = curves_for(kind, x, data.y)
    ones = np.ones((1, data.n))
    best = {name: fit(curve, data, ones)[0][0] for name, curve in curves.items()}
    best["hinge"] = _at_least_as_good(curves, data, best)
    level = np.array([point.level for point in points])
    weights = run_weights(level, plan.resamples, rng)
    rates = resampled_rates(points, plan.split, plan.resamples, rng) if kind == "success" else None
    resampled = Data(kind=kind, y=data.y if rates is None else rates, trials=data.trials)
    phi = 1.0 if kind == "error" else dispersion(curves["hinge"], data, best["hinge"])
    fits = {
        name: _fitted(curve, data, best[name], fit(curve, resampled, weights, _few(curve, best[name]))[0], level, plan)
        for name, curve in curves.items()
    }
    scored = {name: _with_aicc(each, curves[name], data, phi) for name, each in fits.items()}
    found = None
    if threshold:
        count = min(plan.resamples, MOST_SIMULATIONS)
        found = _threshold(curves, scored, level, _likelihood_ratio_p(curves, data, best, count, rng))
    return Comparison(kind=kind, data=data, curves=curves, fits=scored, threshold=found)


def _at_least_as_good(curves: dict[str, Curve], data: Data, best: dict[str, Array]) -> Array:
    """The hinge's best fit; begun also at the law itself with E* at the lowest E, so that it is never worse."""
    nested = np.append(best["plain"], curves["hinge"].low[-1])[None]
    ones = np.ones((1, data.n))
    from_law, cost_law = fit(curves["hinge"], data, ones, nested)
    _, cost = fit(curves["hinge"], data, ones, best["hinge"][None])
    return from_law[0] if cost_law[0] < cost[0] else best["hinge"]


def _few(curve: Curve, best: Array) -> Array:
    """Starts for a refit: the best fit of all data, and some of the curve's own, spread out."""
    return np.vstack([best, curve.starts[:: max(1, len(curve.starts) // 4)]])


def _fitted(curve: Curve, data: Data, theta: Array, resampled: Array, level: np.ndarray, plan: Plan) -> Fitted:
    natural, spread = curve.natural(theta[None]), curve.natural(resampled)
    parameters = {name: (float(natural[name][0]), *interval(spread[name], plan.alpha)) for name in natural}
    edge = 1e-3 * (curve.high - curve.low)
    bound = ((resampled < curve.low + edge) | (resampled > curve.high - edge)).mean(axis=0)
    x = np.linspace(curve.x.min(), curve.x.max(), GRID)
    drawn, drawn_all = curve.value(theta[None], x)[0], curve.value(resampled, x)
    low, high = np.quantile(drawn_all, [plan.alpha / 2, 1 - plan.alpha / 2], axis=0)
    if data.kind == "error":
        drawn, low, high = np.exp(drawn), np.exp(low), np.exp(high)
    value = curve.value(theta[None])[0]
    residuals = data.y - value
    if data.kind == "success":
        residuals = residuals / np.sqrt(np.clip(value * (1 - value), 1e-4, None) / data.trials)
    return Fitted(
        name=curve.name,
        theta=theta,
        parameters=parameters,
        at_bound=dict(zip(natural, map(float, bound), strict=True)),
        aicc=float("nan"),
        noise=float("nan"),
        explained=_explained(data.y, value, level),
        left_out_seed=left_out_error(curve, data, theta, _turn(level)),
        left_out_level=left_out_error(curve, data, theta, level),
        grid=np.exp(x),
        curve=drawn,
        low=low,
        high=high,
        residuals=residuals,
    )


def _with_aicc(fitted: Fitted, curve: Curve, data: Data, phi: float) -> Fitted:
    noise = dispersion(curve, data, fitted.theta)
    return replace(
        fitted,
        aicc=aicc(curve, data, fitted.theta, phi),
        noise=float(np.sqrt(noise)) if data.kind == "error" else noise,
    )


def left_out_error(curve: Curve, data: Data, theta: Array, fold: np.ndarray) -> float:
    """Root mean square error of the points of each fold, predicted from those of the other folds."""
    folds = np.unique(fold)
    if len(folds) < 2:
        return float("nan")
    weights = np.array([(fold != each).astype(float) for each in folds])
    predicted = curve.value(fit(curve, data, weights, _few(curve, theta))[0])
    squares = [(predicted[i, fold == each] - data.y[fold == each]) ** 2 for i, each in enumerate(folds)]
    return float(np.sqrt(np.concatenate(squares).mean()))


def _explained(y: Array, value: Array, level: np.ndarray) -> float:
    """1 - lack of fit / between-level sum of squares; the scatter within a level counts for neither."""
    lack = between = 0.0
    for each in np.unique(level):
        mine = level == each
        lack += mine.sum() * float(y[mine].mean() - value[mine].mean()) ** 2
        between += mine.sum() * float(y[mine].mean() - y.mean()) ** 2
    return 1.0 - lack / between if between > 0 else 0.0


def _turn(level: np.ndarray) -> np.ndarray:
    """i64[n]: 0 for the first run of every level, 1 for the second, ...; a level's runs are in order of their seeds."""
    return np.array([int((level[:i] == each).sum()) for i, each in enumerate(level)])


def _threshold(curves: dict[str, Curve], fits: dict[str, Fitted], level: np.ndarray, p: float) -> Threshold:
    estimate, low, high = fits["hinge"].parameters["E_star"]
    centre = np.array([curves["hinge"].x[level == each].mean() for each in np.unique(level)])
    plain, hinge = fits["plain"], fits["hinge"]
    return Threshold(
        p=p,
        estimate=estimate,
        low=low,
        high=high,
        aicc_gain=plain.aicc - hinge.aicc if np.isfinite(hinge.aicc) else float("-inf"),
        left_out_gain=1.0 - hinge.left_out_seed / plain.left_out_seed if plain.left_out_seed > 0 else 0.0,
        levels_below=int((centre <= np.log(estimate) + 1e-6).sum()),
        levels_above=int((centre > np.log(estimate) + 1e-6).sum()),
    )


def _likelihood_ratio_p(
    curves: dict[str, Curve], data: Data, best: dict[str, Array], count: int, rng: np.random.Generator
) -> float:
    """Parametric bootstrap of the likelihood ratio, hinge against law, under the law as fitted."""
    plain, hinge = curves["plain"], curves["hinge"]
    noise = dispersion(plain, data, best["plain"])
    observed = _ratio(data, plain, hinge, best["plain"], best["hinge"])
    simulated = _simulate(plain, data, best["plain"], noise, count, rng)
    ones = np.ones((count, data.n))
    theta = fit(plain, simulated, ones, _few(plain, best["plain"]))[0]
    starts = np.vstack([_few(hinge, best["hinge"]), np.append(best["plain"], hinge.low[-1])])
    with_hinge = fit(hinge, simulated, ones, starts)[0]
    null = []
    for i in range(count):
        one = Data(kind=data.kind, y=simulated.y[i], trials=data.trials)
        null.append(_ratio(one, plain, hinge, theta[i], with_hinge[i]))
    return float((1 + np.sum(np.array(null) >= observed)) / (1 + count))


def _ratio(data: Data, plain: Curve, hinge: Curve, theta: Array, with_hinge: Array) -> float:
    """Likelihood ratio; for counts over the dispersion that remains, as in an F-test."""
    gain = max(0.0, deviance(plain, data, theta) - deviance(hinge, data, with_hinge))
    return gain if data.kind == "error" else gain / dispersion(hinge, data, with_hinge)


def _simulate(curve: Curve, data: Data, theta: Array, noise: float, count: int, rng: np.random.Generator) -> Data:
    """Datasets like `data` under a fitted curve: log-normal errors, or counts with the same over-dispersion."""
    value = curve.value(theta[None])[0]
    if data.kind == "error":
        y = value + np.sqrt(noise) * rng.standard_normal((count, data.n))
        return Data(kind="error", y=y, trials=data.trials)
    n = data.trials
    # A beta-binomial of variance phi n p (1 - p) has intra-run correlation (phi - 1) / (n - 1).
    rho = np.clip((noise - 1.0) / np.maximum(n - 1, 1), 0.0, 0.9)
    p = np.clip(value, 1e-4, 1 - 1e-4)
    drawn = np.broadcast_to(p, (count, data.n))
    if (rho > 1e-9).any():
        size = (1 - rho) / np.maximum(rho, 1e-9)
        drawn = rng.beta(p * size, (1 - p) * size, size=(count, data.n))
    return Data(kind="success", y=rng.binomial(n.astype(int), drawn) / n, trials=n)
