"""The stacked least squares against scipy's, one problem at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from scaling_studies.laws import Array, SaturatingPowerLaw
from scaling_studies.least_squares import minimise

X = np.geomspace(100, 100_000, 7)
LAW = SaturatingPowerLaw.for_data(X)


def noisy(params: list[float], sigma: float, seed: int) -> Array:
    return LAW.predict(X, np.array(params)) + sigma * np.random.default_rng(seed).standard_normal(len(X))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "params", [[0.1, 0.2, 0.5], [0.0, 0.3, 0.1], [0.2, 0.02, 1.0]], ids=["plain", "floor at its bound", "shallow"]
)
def test_minimum_is_as_low_as_scipys(params: list[float], seed: int) -> None:
    sigma = np.linspace(0.004, 0.008, len(X))
    y = noisy(params, 0.006, seed)
    lower, upper = LAW.bounds(y)
    starts = LAW.starts(X, y)
    ours = minimise(LAW, X, y, sigma, starts, lower, upper)

    def residuals(params: Array) -> Array:
        return (LAW.predict(X, params) - y) / sigma

    inside = np.clip(starts, lower + 1e-9, upper - 1e-9)
    tight = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12, "max_nfev": 2_000}
    theirs = min(
        (least_squares(residuals, start, bounds=(lower, upper), **tight) for start in inside), key=lambda fit: fit.cost
    )
    best = int(np.argmin(ours.chi2))
    assert ours.converged[best]
    # scipy stops a hair inside the bounds, so that ours may be a little lower but never higher.
    assert ours.chi2[best] <= 2 * theirs.cost * (1 + 1e-6)
    assert ours.chi2[best] >= 2 * theirs.cost * (1 - 1e-3)
    assert np.all((ours.params >= lower) & (ours.params <= upper))


def test_a_problem_ends_the_same_alone_and_in_a_stack() -> None:
    sigma = np.full(len(X), 0.005)
    y = np.stack([noisy([0.1, 0.2, 0.5], 0.005, seed) for seed in range(5)])
    lower, upper = LAW.bounds(y)
    starts = np.tile([0.05, 0.2, 0.4], (5, 1))
    stacked = minimise(LAW, X, y, sigma, starts, lower, upper)
    for index in range(5):
        alone = minimise(LAW, X, y[index], sigma, starts[:1], lower, upper)
        # Sums of a stack may run in another order: equal to rounding, far below any interval.
        np.testing.assert_allclose(alone.params[0], stacked.params[index], rtol=1e-6)


def test_perfect_scores_everywhere_end_in_a_flat_curve_at_zero() -> None:
    y = np.zeros(len(X))
    lower, upper = LAW.bounds(y)
    minimum = minimise(LAW, X, y, np.full(len(X), 0.01), LAW.starts(X, y), lower, upper)
    assert minimum.converged.all()
    assert np.all(minimum.chi2 == 0)
