"""The three approaches to compute-optimal training agree on data from a known law."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling_studies import envelope, fit_law, isoflop, optimal_allocation
from scaling_studies.compute import power_line
from scaling_studies.coverage import CASES

P = CASES["parametric"].params
BUDGETS = np.geomspace(1e18, 1e21, 5)


def loss(params: np.ndarray, samples: np.ndarray) -> np.ndarray:
    return P["E"] + P["A"] / params ** P["alpha"] + P["B"] / samples ** P["beta"]


def isoflops(width: float = 0.7) -> pd.DataFrame:
    """Seven sizes around the optimum of each budget."""
    balance = (P["alpha"] * P["A"] / (P["beta"] * P["B"])) ** (1 / (P["alpha"] + P["beta"]))
    best = balance * (BUDGETS / 6) ** (P["beta"] / (P["alpha"] + P["beta"]))
    params = (best[:, None] * np.exp(np.linspace(-width, width, 7))).ravel()
    flops = np.repeat(BUDGETS, 7)
    samples = flops / 6 / params
    return pd.DataFrame({"flops": flops, "params": params, "samples_seen": samples, "loss": loss(params, samples)})


def test_parametric_optimum_is_the_lowest_point_of_its_budget() -> None:
    points = isoflops()
    fit = fit_law(points, "parametric", x=("params", "samples_seen"), y="loss")
    found = optimal_allocation(fit, BUDGETS)
    np.testing.assert_allclose(6 * found.params * found.samples, BUDGETS)
    for factor in (0.99, 1.01):
        assert np.all(fit.predict(found.params * factor, found.samples / factor) > found.loss)
    assert found.params_exponent == pytest.approx(0.28 / 0.62, rel=1e-3)
    assert found.params_exponent + found.samples_exponent == pytest.approx(1.0)
    np.testing.assert_allclose(found.params_scale * BUDGETS**found.params_exponent, found.params)


def test_parabolas_find_the_optimum_of_every_budget() -> None:
    found = isoflop(isoflops(), budget="flops", params="params", y="loss")
    assert found.table["inside"].all()
    # A loss is no parabola in log N: over e^0.7 to either side its minimum is off by a few per cent, its exponent less.
    assert found.params.exponent == pytest.approx(0.28 / 0.62, abs=0.01)
    assert found.samples.exponent == pytest.approx(0.34 / 0.62, abs=0.01)


def test_a_budget_without_its_optimum_is_on_no_line() -> None:
    points = isoflops()
    largest = points["flops"] == BUDGETS[-1]
    points = points[~largest | (points["params"] > points["params"][largest].median() * 1.5)]
    found = isoflop(points, budget="flops", params="params", y="loss")
    assert list(found.table["inside"]) == [True] * 4 + [False] * (len(found.table) - 4)
    with pytest.raises(ValueError, match="only 1 values of flops have a minimum inside"):
        isoflop(points[points["flops"] == BUDGETS[0]], budget="flops", params="params", y="loss")


def test_the_envelope_takes_the_lowest_of_each_bin() -> None:
    points = pd.DataFrame({"flops": [1.0, 2.0, 1e3, 2e3, 1e6], "error": [0.9, 0.8, 0.5, 0.6, 0.2]})
    found = envelope(points, compute="flops", y="error", num_bins=3)
    assert list(found.table["error"]) == [0.8, 0.5, 0.2]
    edges = np.linspace(0, 6.1, 4)
    np.testing.assert_allclose(np.log10(found.table["at"]), (edges[1:] + edges[:-1]) / 2)
    with pytest.raises(ValueError, match="at='middle' is neither"):
        envelope(points, compute="flops", y="error", at="middle")


def test_the_envelope_of_uneven_budgets_goes_through_its_runs() -> None:
    flops = np.array([1.0, 30.0, 40.0, 5e3, 6e3])
    points = pd.DataFrame({"flops": flops, "error": 2 * flops**-0.1})
    found = envelope(points, compute="flops", y="error", num_bins=3, at="runs")
    assert list(found.table["at"]) == list(found.table["flops"]) == [1.0, 40.0, 6e3]
    assert (found.line.scale, found.line.exponent) == pytest.approx((2, -0.1))


def test_repeating_data_shifts_compute_from_parameters_to_nothing_better() -> None:
    case = CASES["data_constrained"]
    fit = fit_law(case.points(), "data_constrained", x=case.x_names(), y="y")
    plenty, few = (optimal_allocation(fit, 1e20, unique_images=count) for count in (1e14, 1e8))
    assert few.loss > plenty.loss
    for factor in (0.9, 1.1):
        assert fit.predict(few.params * factor, few.samples / factor, 1e8) > few.loss
    with pytest.raises(ValueError, match="needs unique_images"):
        optimal_allocation(fit, 1e20)


def test_a_power_line_is_exact_on_one() -> None:
    x = np.array([1.0, 10.0, 100.0, 1e4])
    line = power_line(x, 3 * x**-0.5)
    assert (line.scale, line.exponent) == pytest.approx((3.0, -0.5))
    assert line.exponent_low <= line.exponent <= line.exponent_high
