"""Efficiency ratios: a known one comes back with its interval, and limits where a curve does not reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from scaling_studies import LawFit, crossings, efficiency, fit_law
from scaling_studies.coverage import CASES
from scaling_studies.efficiency import common_qualities, slices_of

X = np.geomspace(100, 100_000, 7)
SIGMA = 0.002


def error(x: Any, needs: float, floor: float = 0.1) -> Any:
    """The error of a method that needs `needs` times the images of the plain one."""
    return floor + 0.15 * (x / needs / 3_000) ** -0.4


def fit_of(needs: float, *, seed: int, floor: float = 0.1, noise: Any = 0.0) -> LawFit:
    points = {"unique_images": X, "error": error(X, needs, floor) + noise, "sigma": np.full(len(X), SIGMA)}
    return fit_law(points, "m2", x="unique_images", y="error", sigma="sigma", scale="linear", seed=seed)


@pytest.fixture(scope="module")
def better() -> LawFit:
    return fit_of(1.0, seed=1)


@pytest.fixture(scope="module")
def worse() -> LawFit:
    return fit_of(3.0, seed=2)


def common(first: LawFit, second: LawFit) -> tuple[float, float]:
    found = common_qualities(*slices_of(first, second))
    assert found is not None
    return found


def test_a_ratio_of_three_comes_back(better: LawFit, worse: LawFit) -> None:
    errors = common(better, worse)
    for at in (errors[0], sum(errors) / 2):
        # The points carry no noise, so that only the minimizer's tolerance is left.
        assert efficiency(better, worse, at=at).ratio == pytest.approx(3.0, rel=1e-4)
        assert efficiency(worse, better, at=at).ratio == pytest.approx(1 / 3, rel=1e-4)


def test_the_interval_of_a_ratio_covers_it_in_about_95_percent_of_studies() -> None:
    covered, num_studies = 0, 30
    for study in range(num_studies):
        noise = SIGMA * np.random.default_rng(study).standard_normal((2, len(X)))
        # Both with one seed: their bootstrap samples must not hang together for that.
        first, second = (fit_of(needs, seed=study, noise=noise[i]) for i, needs in enumerate((1.0, 3.0)))
        found = efficiency(first, second, at=sum(common(first, second)) / 2)
        assert found.low < found.ratio < found.high
        covered += found.low <= 3.0 <= found.high
    # 95% of 30 with a standard deviation of 1.2: 25 is 3 below.
    assert covered >= 25


def test_both_methods_stand_inside_their_data(better: LawFit, worse: LawFit) -> None:
    found = efficiency(better, worse, at=sum(common(better, worse)) / 2)
    assert X[0] < found.x_1 < found.x_2 < X[-1]
    assert (found.outside_1, found.outside_2, found.extrapolated) == (0.0, 0.0, False)


def test_at_the_lowest_common_error_half_of_the_weaker_curves_do_not_reach_and_the_interval_is_open(
    better: LawFit, worse: LawFit
) -> None:
    found = efficiency(better, worse, at=common(better, worse)[0])
    assert found.x_2 == pytest.approx(X[-1])
    # Half of the curves end above the error; 1,000 draws of a half have a standard deviation of 0.016.
    assert found.outside_2 == pytest.approx(0.5, abs=0.07)
    assert 2.0 < found.low < 3.0
    assert found.high == np.inf


def test_curves_that_share_no_error_are_not_compared(better: LawFit) -> None:
    high = fit_of(1.0, seed=2, floor=0.8)
    assert common_qualities(*slices_of(better, high)) is None
    with pytest.raises(ValueError, match="^not reached within the data: curve 1 goes from"):
        efficiency(better, high)


def test_a_quality_beyond_the_data_is_refused_unless_asked_for_and_then_flagged(better: LawFit, worse: LawFit) -> None:
    # The plain method's error at 200,000 images, twice its largest.
    at = float(error(2e5, 1.0))
    with pytest.raises(ValueError, match="^not reached within the data: error 0.128, the curve spans"):
        efficiency(better, worse, at=at)
    found = efficiency(better, worse, at=at, extrapolate=True)
    assert found.extrapolated
    assert found.ratio == pytest.approx(3.0, rel=1e-3)
    assert (found.beyond_1, found.beyond_2) == (pytest.approx(2.0, rel=1e-3), pytest.approx(6.0, rel=1e-3))
    with pytest.raises(ValueError, match="not reached by the law within a factor 1e\\+06 of the data"):
        efficiency(better, worse, at=0.05, extrapolate=True)


def test_over_qualities_there_is_a_table(better: LawFit, worse: LawFit) -> None:
    table = efficiency(better, worse)
    assert isinstance(table, pd.DataFrame)
    assert table["ratio"].to_numpy() == pytest.approx(3.0, rel=1e-3)
    assert (table["quality"].iloc[0], table["quality"].iloc[-1]) == pytest.approx(common(better, worse))
    rows = efficiency(better, worse, at=[0.05, 0.2])
    assert rows["reason"][0].startswith("not reached within the data: error 0.05")
    assert np.isnan(rows["ratio"][0])
    assert rows["ratio"][1] == pytest.approx(3.0, rel=1e-3)


def test_a_crossing_is_found_where_it_is(better: LawFit, worse: LawFit) -> None:
    # 0.15 (x / 3e3)^-0.4 = 0.05 + 0.15 (4 x / 3e3)^-0.4.
    quick = fit_of(0.25, seed=3, floor=0.15)
    place = 3_000 * (0.15 * (1 - 4**-0.4) / 0.05) ** 2.5
    (found,) = crossings(quick, better)
    assert found.x == pytest.approx(place, rel=1e-3)
    assert found.quality == pytest.approx(float(error(place, 1.0)), rel=1e-3)
    assert found.low < found.x < found.high
    assert found.share == 1.0
    assert found.better_below == 1
    assert crossings(better, quick)[0].better_below == 2
    assert crossings(better, worse) == []


def test_accuracies_are_compared_too() -> None:
    form = CASES["accuracy"]
    fits = []
    for needs in (1.0, 2.0):
        points = {"samples_seen": form.x[0] * needs, "accuracy": form.true_y()}
        fits.append(fit_law(points, "accuracy", x="samples_seen", y="accuracy"))
    assert efficiency(*fits, at=0.5).ratio == pytest.approx(2.0, rel=1e-3)
    best, worst = common(*fits)
    assert best > worst


@pytest.fixture(scope="module")
def surfaces() -> tuple[LawFit, LawFit]:
    """Two methods of one law in N and D, of which the second needs twice the samples, with a little noise."""
    case, fits = CASES["parametric"], []
    for seed, needs in enumerate((1.0, 2.0)):
        points = case.points(np.random.default_rng(seed))
        table = {"params": points["x0"], "samples_seen": needs * points["x1"], "loss": points["y"]}
        fits.append(fit_law(table, "parametric", x=("params", "samples_seen"), y="loss", huber_delta=np.inf))
    return fits[0], fits[1]


def test_of_a_law_in_two_variables_one_is_held(surfaces: tuple[LawFit, LawFit]) -> None:
    found = efficiency(*surfaces, at=2.6, over="samples_seen", held={"params": 1e9})
    assert found.ratio == pytest.approx(2.0, rel=0.05)
    assert found.low < 2.0 < found.high
    # Half of the samples count as all of them: the second law's N makes up for it where B / D^beta is its equal.
    assert efficiency(*surfaces, at=2.6, over="params", held={"samples_seen": 1e11}).ratio > 1.0
    # Under C = 6 N D a method that needs twice the samples needs twice the compute.
    assert efficiency(*surfaces, at=2.6, over="compute").ratio == pytest.approx(2.0, rel=0.05)


def test_a_held_value_beyond_the_data_is_an_extrapolation(surfaces: tuple[LawFit, LawFit]) -> None:
    options = {"over": "params", "held": {"samples_seen": 1e15}}
    found = efficiency(*surfaces, at=2.6, extrapolate=True, **options)
    assert found.extrapolated
    # The second method's samples go to 2e12.
    assert (found.beyond_1, found.beyond_2) == (pytest.approx(1e3), pytest.approx(500))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "say over which variable"),
        ({"over": "params"}, "along params the law 'parametric' needs samples_seen held, got nothing"),
        ({"over": "unique_images"}, "over is 'unique_images': the fit of loss is over params, samples_seen"),
        (
            {"over": "params", "held": {"samples_seen": 1e15}},
            "not reached within the data: samples_seen is held at 1e+15, measured were",
        ),
        ({"over": "compute", "level": 95.0}, "level is 95.0"),
    ],
)
def test_what_cannot_be_compared_is_said(surfaces: tuple[LawFit, LawFit], options: Any, says: str) -> None:
    with pytest.raises(ValueError) as refused:
        efficiency(*surfaces, at=2.6, **options)
    assert says in str(refused.value)


def test_unique_images_and_samples_seen_are_not_mixed(better: LawFit) -> None:
    seen = fit_law({"samples_seen": X, "error": error(X, 1.0)}, "m2", x="samples_seen", y="error")
    with pytest.raises(ValueError, match="the fits are over unique_images; samples_seen"):
        efficiency(better, seen, at=0.2)
    loss = fit_law({"unique_images": X, "loss": error(X, 1.0)}, "m2", x="unique_images", y="loss")
    with pytest.raises(ValueError, match="the fits are of error and loss"):
        efficiency(better, loss, at=0.2)
