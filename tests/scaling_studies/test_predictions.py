"""Predictions: the law's own values, with intervals, and a word about what lies beyond the data."""

from __future__ import annotations

import numpy as np
import pytest

from scaling_studies import LawFit, cheapest, fit_law, needed, predict_quality
from scaling_studies.coverage import CASES
from scaling_studies.extent import ScoredReach
from scaling_studies.slices import Slice

P = CASES["parametric"].params


@pytest.fixture(scope="module")
def surface() -> LawFit:
    points = CASES["parametric"].points(np.random.default_rng(0))
    table = {"params": points["x0"], "samples_seen": points["x1"], "loss": points["y"]}
    return fit_law(table, "parametric", x=("params", "samples_seen"), y="loss", huber_delta=np.inf)


def loss(params: float, samples: float) -> float:
    return P["E"] + P["A"] / params ** P["alpha"] + P["B"] / samples ** P["beta"]


def test_the_quality_at_a_point_has_an_interval_and_no_warning_inside_the_data(surface: LawFit) -> None:
    found = predict_quality(surface, {"params": 3e8, "samples_seen": 2e10})
    assert found.low < loss(3e8, 2e10) < found.high
    assert (found.beyond, found.warning) == (1.0, None)


def test_a_point_beyond_the_data_says_so_unless_that_was_validated(surface: LawFit) -> None:
    point = {"params": 1e9, "samples_seen": 4e12}
    found = predict_quality(surface, point)
    assert found.beyond == pytest.approx(4.0)
    assert found.warning == "samples_seen goes 4 times beyond the data: no extrapolation was validated"
    assert predict_quality(surface, point, tested=ScoredReach("samples_seen", 4.0, rmse=0.01)).warning is None
    with pytest.raises(ValueError, match="was fitted over params, samples_seen: got params"):
        predict_quality(surface, {"params": 1e9})


def test_what_a_quality_takes_is_where_the_law_has_it(surface: LawFit) -> None:
    quality = loss(1e9, 3e10)
    for over, held, truth in (
        ("samples_seen", {"params": 1e9}, 3e10),
        ("params", {"samples_seen": 3e10}, 1e9),
    ):
        found = needed(surface, quality, over=over, held=held)
        assert found.low < truth < found.high
        assert found.value == pytest.approx(truth, rel=0.1)
    with pytest.raises(ValueError, match="not reached within the data: loss 1.8"):
        needed(surface, 1.8, over="params", held={"samples_seen": 3e10})
    far = needed(surface, loss(1e9, 4e12), over="samples_seen", held={"params": 1e9}, extrapolate=True)
    assert far.warning is not None
    assert far.beyond == pytest.approx(4.0, rel=0.1)


def test_the_cheapest_point_of_a_budget_is_the_lowest_on_it(surface: LawFit) -> None:
    found = cheapest(surface, compute=1e21)
    size, samples = found.params.value, found.samples.value
    assert 6 * size * samples == pytest.approx(1e21)
    for factor in (0.9, 1.1):
        assert float(surface.predict(size * factor, samples / factor)) > found.quality.value
    truth = (P["alpha"] * P["A"] / P["beta"] / P["B"]) ** (1 / 0.62) * (1e21 / 6) ** (0.28 / 0.62)
    assert found.params.low < truth < found.params.high
    assert found.quality.low < loss(truth, 1e21 / 6 / truth) < found.quality.high


def test_the_cheapest_run_of_a_quality_is_the_budget_whose_best_it_is(surface: LawFit) -> None:
    there = cheapest(surface, compute=1e21)
    back = cheapest(surface, quality=there.quality.value)
    assert back.compute.value == pytest.approx(1e21, rel=1e-6)
    assert needed(surface, there.quality.value, over="compute").value == pytest.approx(1e21, rel=1e-6)
    with pytest.raises(ValueError, match="give either compute"):
        cheapest(surface)


def test_repeated_data_have_an_optimum_too() -> None:
    case = CASES["data_constrained"]
    points = case.points()
    names = ("params", "samples_seen", "unique_images")
    table = dict(zip(names, (points["x0"], points["x1"], points["x2"]), strict=True)) | {"loss": points["y"]}
    fit = fit_law(table, "data_constrained", x=names, y="loss")
    found = cheapest(fit, compute=1e20, unique_images=1e10)
    size, samples = found.params.value, found.samples.value
    for factor in (0.9, 1.1):
        assert float(fit.predict(size * factor, samples / factor, 1e10)) > found.quality.value


@pytest.fixture(scope="module")
def isoflop() -> LawFit:
    """Sizes at four budgets of at most 1e20: no run is large in both N and D."""
    rows = [(n, budget / 6 / n) for budget in np.geomspace(1e17, 1e20, 4) for n in np.geomspace(1e7, 1e10, 7)]
    size, samples = np.array(rows).T
    noise = np.exp(0.002 * np.random.default_rng(0).standard_normal(len(rows)))
    table = {"params": size, "samples_seen": samples, "loss": loss(size, samples) * noise}
    return fit_law(table, "parametric", x=("params", "samples_seen"), y="loss", huber_delta=np.inf)


def test_large_in_both_is_beyond_runs_that_are_large_in_one(isoflop: LawFit) -> None:
    corner = {name: ends[1] for name, ends in isoflop.x_range.items()}
    found = predict_quality(isoflop, corner)
    assert found.beyond == pytest.approx(6 * corner["params"] * corner["samples_seen"] / 1e20)
    assert found.warning is not None
    assert found.warning.startswith("params x samples_seen goes 1e+03 times beyond the data")
    assert Slice(isoflop, "compute").x_range[1] <= 1e20 * (1 + 1e-9)
    beyond = needed(isoflop, loss(1e10, 1e11), over="params", held={"samples_seen": 1e11}, extrapolate=True)
    assert beyond.beyond == pytest.approx(60, rel=0.2)


def test_held_values_beyond_the_data_are_said(surface: LawFit) -> None:
    found = needed(surface, 2.2, over="params", held={"samples_seen": 1e15}, extrapolate=True)
    assert found.beyond == pytest.approx(1e3)
    assert found.warning == "1e+03 times beyond the data; samples_seen is held at 1e+15, measured were 1e+08 to 1e+12"


def test_of_a_quality_the_compute_has_the_interval_and_n_and_d_follow_it(surface: LawFit) -> None:
    quality = cheapest(surface, compute=1e21).quality.value
    found = cheapest(surface, quality=quality)
    assert (found.quality.low, found.quality.value, found.quality.high) == (quality, quality, quality)
    expected = needed(surface, quality, over="compute")
    # `needed` interpolates on a grid of compute, `cheapest` inverts every sample's frontier.
    assert (found.compute.low, found.compute.high) == pytest.approx((expected.low, expected.high), rel=1e-3)
    at_budget = cheapest(surface, compute=found.compute.value)
    assert (at_budget.compute.low, at_budget.compute.high) == (found.compute.value, found.compute.value)
    assert found.params.low < at_budget.params.low < at_budget.params.high < found.params.high
