"""Extrapolation tests, cross-validation and rankings prefer the law behind the data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling_studies import cross_validation, extrapolation_test, fit_law, rank_laws
from scaling_studies.coverage import CASES
from scaling_studies.trust import information_criteria

X = np.geomspace(1e3, 1e7, 30)


@pytest.fixture(scope="module")
def saturating() -> pd.DataFrame:
    noise = np.exp(0.005 * np.random.default_rng(0).standard_normal(30))
    return pd.DataFrame({"samples_seen": X, "error": (0.1 + 3 * X**-0.4) * noise})


def test_the_lower_half_is_fitted_and_the_upper_scored(saturating: pd.DataFrame) -> None:
    found = extrapolation_test(saturating, "m2", x="samples_seen", y="error")
    below = saturating[X <= 5e6]
    assert (found.cutoff, found.num_fitted, found.num_scored) == (5e6, len(below), 30 - len(below))
    fit = fit_law(below, "m2", x="samples_seen", y="error")
    upper = saturating[X > 5e6]
    miss = np.log(fit.predict(upper["samples_seen"]) / upper["error"])
    assert found.rmse == pytest.approx(float(np.sqrt(np.mean(miss**2))))
    assert found.validated == pytest.approx(1e7 / X[X <= 5e6].max())


def test_a_test_without_enough_points_below_says_so(saturating: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="extrapolation test of law 'm2', samples_seen <= 5e\\+06: not enough points"):
        extrapolation_test(saturating[-5:], "m2", x="samples_seen", y="error")


def test_the_law_behind_the_data_ranks_before_a_straight_line(saturating: pd.DataFrame) -> None:
    table = rank_laws(saturating, ["m1", "m2"], x="samples_seen", y="error")
    assert list(table["law"]) == ["m2", "m1"]
    assert table["aic"][0] < table["aic"][1]
    assert table["extrapolation_rmse"][0] < table["extrapolation_rmse"][1]
    with pytest.raises(ValueError, match="not on one scale"):
        rank_laws(saturating, ["m2", "accuracy"], x="samples_seen", y="error")
    low = rank_laws(saturating, ["m2"], x="samples_seen", y="error", share=0.1)
    assert low["num_fitted"][0] == (X <= 1e6).sum() < table["num_fitted"][0]
    with pytest.raises(ValueError, match="share is 1.5"):
        rank_laws(saturating, ["m2"], x="samples_seen", y="error", share=1.5)


def test_of_equal_laws_the_one_of_fewest_parameters_ranks_first_with_the_rows_of_its_test() -> None:
    # Without a floor the laws that have one end at the power law: equal but for the last digits of the minimiser.
    noise = np.exp(0.005 * np.random.default_rng(1).standard_normal(30))
    table = rank_laws({"flops": X, "error": 3 * X**-0.2 * noise}, ["m3", "m2", "m1"], x="flops", y="error")
    tied = table["extrapolation_rmse"].map(lambda rmse: f"{rmse:.3g}") == f"{table['extrapolation_rmse'][0]:.3g}"
    assert tied.sum() >= 2
    assert list(table["num_params"][tied]) == sorted(table["num_params"][tied])
    assert table["law"][0] == "m1"
    test = extrapolation_test({"flops": X, "error": 3 * X**-0.2 * noise}, "m1", x="flops", y="error")
    assert (table["num_fitted"][0], table["num_scored"][0]) == (test.num_fitted, test.num_scored)


def test_a_law_that_cannot_be_tested_stays_in_the_table_with_its_reason(saturating: pd.DataFrame) -> None:
    table = rank_laws(saturating[::5], ["m4", "m1"], x="samples_seen", y="error", options={"m1": {"huber_delta": 0.01}})
    assert list(table["law"]) == ["m1", "m4"]
    assert table["reason"][1].startswith("extrapolation test of law 'm4'")


def test_criteria_of_a_line_are_those_of_normal_residuals() -> None:
    points = CASES["m1"].points(np.random.default_rng(0))
    found = information_criteria(fit_law(points, "m1", x="x0", y="y"))
    slope, level = np.polyfit(np.log(points["x0"]), np.log(points["y"]), 1)
    residual = np.log(points["y"]) - slope * np.log(points["x0"]) - level
    likelihood = 24 * (np.log(2 * np.pi * np.mean(residual**2)) + 1)
    assert found["aic"] == pytest.approx(likelihood + 6)
    assert found["bic"] == pytest.approx(likelihood + 3 * np.log(24))


def test_every_model_size_is_left_out_once() -> None:
    points = pd.DataFrame(CASES["parametric"].points())
    points = points[points["x0"].isin(points["x0"].unique()[::2])]
    found = cross_validation(points, "parametric", x=("x0", "x1"), y="y", by="x0")
    assert list(found.by_group) == pytest.approx(sorted(points["x0"].unique()))
    assert found.failed == {}
    # The points lie on the law: what is left out is predicted to the minimizer's tolerance.
    assert found.rmse < 1e-4


def test_a_law_that_missed_validates_nothing() -> None:
    # A fall that breaks off: fitted below the break, the power law goes on falling.
    error = np.maximum(3 * X**-0.4, 3 * 1e5**-0.4)
    found = extrapolation_test({"samples_seen": X, "error": error}, "m1", x="samples_seen", y="error", share=0.01)
    assert found.rmse > 0.5
    assert found.reach > 50
    assert found.validated == 1.0
    assert found.tested.validated == 1.0
