"""Fits with standard errors: how points weigh, and intervals that hold the truth where the errors are too small too."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from scaling_studies import fit_law
from scaling_studies.coverage import CASES


def test_standard_errors_weigh_points() -> None:
    points = CASES["m1"].points() | {"sigma": np.full(24, 0.01)}
    points["y"] = points["y"].copy()
    points["y"][3] *= 2
    points["sigma"][3] = 100.0
    assert fit_law(points, law="m1", x="x0", y="y", sigma="sigma").params["c"] == pytest.approx(-0.2, abs=1e-6)
    assert abs(fit_law(points, law="m1", x="x0", y="y").params["c"] + 0.2) > 1e-3


def test_with_standard_errors_scatter_beyond_them_widens_the_intervals_and_is_said() -> None:
    x = np.geomspace(100, 300_000, 8)
    truth = 0.1 + 3 * x**-0.5
    fits = [
        fit_law(
            {"x": x, "error": truth + scatter * np.array([1, -1] * 4), "sigma": np.full(8, 0.004)},
            "m2",
            x="x",
            y="error",
            sigma="sigma",
            scale="linear",
        )
        for scatter in (0.0, 0.02)
    ]
    quiet, loud = fits
    assert (quiet.birge_ratio, quiet.warnings) == (1.0, [])
    assert loud.birge_ratio == pytest.approx(np.sqrt(loud.chi2 / 5))
    assert any("judged from 5 degrees of freedom" in text for text in loud.warnings)
    widths = [float(np.diff(fit.band(x[3]), axis=0)[0]) for fit in fits]
    assert widths[1] > 3 * widths[0]


@pytest.mark.parametrize("scatter", [0.5, 3.0])
def test_the_band_with_standard_errors_allows_for_what_few_points_leave_open_about_them(scatter: float) -> None:
    log_x, residual = np.array([-1.0, 0.0, 1.0]), np.array([1.0, -2.0, 1.0]) / np.sqrt(6)
    y = np.exp(-0.2 * log_x + 0.01 * scatter * residual)
    fit = fit_law({"x": np.exp(log_x), "error": y, "sigma": 0.01 * y}, "m1", x="x", y="error", sigma="sigma")
    assert fit.chi2 == pytest.approx(scatter**2)
    # Errors that are right have half of the prior; those that are too small up to ten times have the other half.
    factors = np.geomspace(1, 10 * max(1.0, scatter), 2_000)
    likelihood = np.append(1.0, np.exp(-np.log(factors) - scatter**2 / 2 * (factors**-2 - 1)) / 2_000)
    wide = np.append(1.0, factors)

    def outside(width: float) -> float:
        return float(likelihood @ (2 * stats.norm.sf(width / wide)) / likelihood.sum()) - 0.05

    low, high = fit.band(np.e, level=0.95)
    spread = 0.01 * np.sqrt(1 / 3 + 1 / 2)
    assert np.log(high / low) / 2 / spread == pytest.approx(brentq(outside, 1, 1_000), rel=0.2)


def test_bands_with_standard_errors_cover_where_these_are_far_too_small() -> None:
    x, covered = np.geomspace(100, 10_000, 3), 0
    for seed in range(60):
        noise = 0.05 * np.random.default_rng(seed).standard_normal(3)
        points = {"x": x, "error": x**-0.2 * np.exp(noise), "sigma": 0.02 * x**-0.2}
        low, high = fit_law(points, "m1", x="x", y="error", sigma="sigma", seed=seed).band(x[-1])
        covered += bool(low <= x[-1] ** -0.2 <= high)
    # 95% of 60 with a standard deviation of 1.7; with the Birge ratio as if it were known it was 43.
    assert covered >= 52


def test_noise_intervals_cover_the_truth_in_about_95_percent_of_studies() -> None:
    x, num_test, truth = np.geomspace(100, 300_000, 8), 20_000, {"y_inf": 0.1, "b": 2.0, "c": -0.5}
    rate = truth["y_inf"] + truth["b"] * x ** truth["c"]
    covered = dict.fromkeys(truth, 0)
    for seed in range(60):
        error = np.random.default_rng(seed).binomial(num_test, rate) / num_test
        points = {"x": x, "error": error, "sigma": np.sqrt(rate * (1 - rate) / num_test)}
        fit = fit_law(points, "m2", x="x", y="error", sigma="sigma", scale="linear", seed=seed)
        for name, value in truth.items():
            low, high = fit.interval(name, num_samples=200)
            covered[name] += low <= value <= high
    # 95% of 60 with a standard deviation of 1.7: 51 is 3.5 below; the Birge ratio widens some, so all 60 is allowed.
    assert min(covered.values()) >= 51, covered
