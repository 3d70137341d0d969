"""Efficiency ratios: a known one comes back with its interval, and limits where a curve does not reach."""

from __future__ import annotations

import numpy as np
import pytest

from scaling_studies.efficiency import common_errors, efficiency, error_range
from scaling_studies.fitting import Fit, fit_curve
from scaling_studies.laws import SaturatingPowerLaw

X = np.geomspace(100, 100_000, 7)


def fit_of(needs: float, *, seed: int, floor: float = 0.1, sigma: float = 0.002, noise: float = 0.0) -> Fit:
    """A fit to the law of a method that needs `needs` times the images of the plain one."""
    law = SaturatingPowerLaw(x_ref=3_000.0)
    y = law.predict(X / needs, np.array([floor, 0.15, 0.4]))
    y = y + noise * np.random.default_rng(seed).standard_normal(len(X))
    return fit_curve(SaturatingPowerLaw, X, y, np.full(len(X), sigma), seed=seed, num_bootstrap=160)


def middle_of(fit_1: Fit, fit_2: Fit) -> float:
    errors = common_errors(fit_1, fit_2)
    assert errors is not None
    return sum(errors) / 2


def test_a_ratio_of_three_comes_back() -> None:
    better, worse = fit_of(1.0, seed=1), fit_of(3.0, seed=2)
    errors = common_errors(better, worse)
    assert errors is not None
    for at in (errors[0], sum(errors) / 2):
        # The points carry no noise, so that only the minimiser's tolerance is left.
        assert efficiency(better, worse, at=at).ratio == pytest.approx(3.0, rel=1e-4)
        assert efficiency(worse, better, at=at).ratio == pytest.approx(1 / 3, rel=1e-4)


def test_the_interval_of_a_ratio_covers_it_in_about_95_percent_of_studies() -> None:
    covered, num_studies = 0, 30
    for study in range(num_studies):
        better, worse = (fit_of(needs, seed=2 * study + i, noise=0.002) for i, needs in enumerate((1.0, 3.0)))
        found = efficiency(better, worse, at=middle_of(better, worse))
        assert found.low < found.ratio < found.high
        covered += found.low <= 3.0 <= found.high
    # 95% of 30 with a standard deviation of 1.2: 25 is 3 below.
    assert covered >= 25


def test_both_methods_stand_inside_their_data() -> None:
    better, worse = fit_of(1.0, seed=1), fit_of(3.0, seed=2)
    found = efficiency(better, worse, at=middle_of(better, worse))
    assert X[0] < found.x_1 < found.x_2 < X[-1]
    assert (found.outside_1, found.outside_2) == (0.0, 0.0)


def test_at_the_lowest_common_error_half_of_the_weaker_curves_do_not_reach_and_the_interval_is_open() -> None:
    better, worse = fit_of(1.0, seed=1), fit_of(3.0, seed=2)
    errors = common_errors(better, worse)
    assert errors is not None
    found = efficiency(better, worse, at=errors[0])
    assert found.x_2 == pytest.approx(X[-1])
    # Half of the curves end above the error; 160 draws of a half have a standard deviation of 0.04.
    assert found.outside_2 == pytest.approx(0.5, abs=0.15)
    assert 2.0 < found.low < 3.0
    assert found.high == np.inf


def test_curves_that_share_no_error_are_not_compared() -> None:
    low, high = fit_of(1.0, seed=1), fit_of(1.0, seed=2, floor=0.9)
    assert error_range(low)[1] < error_range(high)[0]
    assert common_errors(low, high) is None


def test_an_error_outside_the_data_is_refused() -> None:
    better, worse = fit_of(1.0, seed=1), fit_of(3.0, seed=2)
    best = error_range(better)[0]
    with pytest.raises(ValueError, match="^not reached within the data: error"):
        efficiency(better, worse, at=best)
