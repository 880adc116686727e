"""Curves and batched fits against closed forms, finite differences and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares, minimize

from embodichain.law.curves import curves_for
from embodichain.law.fit import Data, aicc, deviance, dispersion, fit, prediction_sd

E = np.repeat(np.geomspace(2.0, 64.0, 6), 3)
X = np.log(E)


def error_data(seed: int = 0, sigma: float = 0.05) -> Data:
    noise = sigma * np.random.default_rng(seed).standard_normal(len(E))
    return Data(kind="error", y=np.log(2.0 + 12.0 * E**-0.5) + noise, trials=np.ones(len(E)))


def success_data(seed: int = 0, trials: int = 60) -> Data:
    p = 0.9 / (1.0 + (12.0 / E) ** 1.5)
    k = np.random.default_rng(seed).binomial(trials, p)
    return Data(kind="success", y=k / trials, trials=np.full(len(E), float(trials)))


@pytest.mark.parametrize("kind", ["error", "success"])
@pytest.mark.parametrize("name", ["none", "plain", "hinge"])
def test_slopes_are_the_derivatives_of_the_curve(kind: str, name: str) -> None:
    data = error_data() if kind == "error" else success_data()
    curve = curves_for(kind, X, data.y)[name]
    theta = curve.starts[:1] + 0.05
    if name == "hinge":
        theta[0, -1] = np.log(9.0)  # away from the levels, where the curve has a corner
    _, slope = curve.value_and_slope(theta)
    for i in range(curve.size):
        step = np.zeros_like(theta)
        step[0, i] = 1e-6
        numeric = (curve.value(theta + step) - curve.value(theta - step)) / 2e-6
        np.testing.assert_allclose(slope[..., i], numeric, atol=1e-7)


def test_exact_data_give_back_their_parameters() -> None:
    exact = Data(kind="error", y=np.log(2.0 + 12.0 * E**-0.5), trials=np.ones(len(E)))
    curve = curves_for("error", X, exact.y)["plain"]
    theta, cost = fit(curve, exact, np.ones((1, len(E))))
    found = {name: float(value[0]) for name, value in curve.natural(theta).items()}
    assert cost[0] < 1e-9
    assert found["L_inf"] == pytest.approx(2.0, rel=2e-3)
    assert found["A"] == pytest.approx(12.0, rel=2e-3)
    assert found["alpha"] == pytest.approx(0.5, rel=2e-3)


def test_a_hinge_is_found_where_it_is() -> None:
    exact = Data(kind="error", y=np.log(1.0 + 12.0 * np.maximum(E, 10.0) ** -0.7), trials=np.ones(len(E)))
    curve = curves_for("error", X, exact.y)["hinge"]
    theta, _ = fit(curve, exact, np.ones((1, len(E))))
    assert float(curve.natural(theta)["E_star"][0]) == pytest.approx(10.0, rel=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_error_fits_agree_with_scipy(seed: int) -> None:
    data = error_data(seed)
    curve = curves_for("error", X, data.y)["plain"]
    _, cost = fit(curve, data, np.ones((1, len(E))))
    reference = min(
        least_squares(lambda t: curve.value(t[None])[0] - data.y, start, bounds=(curve.low, curve.high)).cost
        for start in np.clip(curve.starts, curve.low + 1e-6, curve.high - 1e-6)
    )
    assert cost[0] == pytest.approx(reference, rel=1e-4)


def test_success_fits_agree_with_scipy() -> None:
    data = success_data()
    curve = curves_for("success", X, data.y)["plain"]
    _, cost = fit(curve, data, np.ones((1, len(E))))

    def minus_log_likelihood(theta: np.ndarray) -> float:
        p = np.clip(curve.value(theta[None])[0], 1e-4, 1 - 1e-4)
        return float(-(data.trials * (data.y * np.log(p) + (1 - data.y) * np.log1p(-p))).sum())

    bounds = list(zip(curve.low, curve.high, strict=True))
    reference = min(minimize(minus_log_likelihood, start, bounds=bounds).fun for start in curve.starts[::4])
    assert cost[0] == pytest.approx(reference, rel=1e-5)


def test_a_weight_counts_as_so_many_runs_and_rows_are_independent() -> None:
    data = error_data()
    weights = np.ones((2, len(E)))
    weights[1, :3] = 2.0
    curve = curves_for("error", X, data.y)["plain"]
    both, _ = fit(curve, data, weights)
    doubled = Data(kind="error", y=np.append(data.y[:3], data.y), trials=np.ones(len(E) + 3))
    long = curves_for("error", np.append(X[:3], X), doubled.y)["plain"]
    alone, _ = fit(long, doubled, np.ones((1, len(E) + 3)))
    assert curve.natural(both[1:])["alpha"][0] == pytest.approx(long.natural(alone)["alpha"][0], rel=1e-3)
    assert both[0] == pytest.approx(fit(curve, data, weights[:1])[0][0], abs=1e-4)


def test_criteria_are_those_of_the_textbook() -> None:
    """A constant: deviance n(log(2 pi RSS/n) + 1), AICc with K = 2, sigma^2 = RSS / (n - 1)."""
    data = error_data()
    curve = curves_for("error", X, data.y)["none"]
    theta, _ = fit(curve, data, np.ones((1, len(E))))
    rss, n = float(((data.y - data.y.mean()) ** 2).sum()), len(E)
    assert theta[0, 0] == pytest.approx(data.y.mean())
    assert deviance(curve, data, theta[0]) == pytest.approx(n * (np.log(2 * np.pi * rss / n) + 1))
    assert aicc(curve, data, theta[0]) == pytest.approx(deviance(curve, data, theta[0]) + 4 + 12 / (n - 3))
    assert dispersion(curve, data, theta[0]) == pytest.approx(rss / (n - 1))
    sd = prediction_sd(curve, data, theta, np.ones((1, n)), 0.04)
    np.testing.assert_allclose(sd, 0.2 * np.sqrt(1 + 1 / n))
