"""Figures of a table of points and its fits: what is dashed, what is warned about, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scaling_studies import (
    LawFit,
    efficiency,
    envelope,
    extrapolation_test,
    fit_law,
    isoflop,
    load_points,
)
from scaling_studies.example import ALPHA, BETA, BUDGETS, PARAMS, SAMPLES, example_isoflop_points, example_points
from scaling_studies.figures import (
    NothingToDrawError,
    checked_laws,
    efficiency_ratio,
    error_vs_compute,
    error_vs_data,
    error_vs_params,
    extrapolation_checks,
    fit_residuals,
    fitted_line,
    fitted_surface,
    iso_loss_contours,
    isoflop_parabolas,
    ratio_curve,
    residual_panels,
)
from scaling_studies.published import reference_series

X = ("params", "samples_seen")


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """A table of others, through a file with columns of other names."""
    file = tmp_path_factory.mktemp("points") / "others.csv"
    table = example_points()
    table[table["objective"] == "xtra"].rename(columns={"params": "Model Size"}).to_csv(file, index=False)
    return load_points(file, columns={"params": "Model Size"})


@pytest.fixture(scope="module")
def fit(points: pd.DataFrame) -> LawFit:
    return fit_law(points, law="parametric", x=X, y="error")


@pytest.fixture(scope="module")
def line_fit(points: pd.DataFrame) -> LawFit:
    return fit_law(points[points["params"] == PARAMS[0]], law="m2", x="samples_seen", y="error")


def series_of(drawing: Any) -> list[dict[str, Any]]:
    return drawing.document()["panels"][0]["series"]


def test_each_size_is_a_slice_of_the_law_over_its_own_data(points: pd.DataFrame, fit: LawFit) -> None:
    series = series_of(error_vs_data(points, fit))
    assert [one["label"] for one in series] == ["5M", "20M", "80M", "300M"]
    for size, one in zip(PARAMS, series, strict=True):
        x = np.array(one["line"]["x"])
        assert (x[0], x[-1]) == (SAMPLES[0], SAMPLES[-1])
        np.testing.assert_allclose(one["line"]["y"], fit.predict(np.full_like(x, size), x))
        assert np.all(np.array(one["line"]["low"]) <= np.array(one["line"]["high"]))


def test_beyond_the_data_a_line_is_dashed_and_warned_about_in_the_picture(points: pd.DataFrame, fit: LawFit) -> None:
    drawing = error_vs_data(points, fit, until=4 * SAMPLES[-1], validated=2.0)
    (warning,) = drawing.warnings
    assert "samples seen drawn to 4 times beyond the data (dashed): only a factor of 2 was validated" in warning
    assert "4 times beyond" in drawing.figure._supxlabel.get_text()
    dashed = [line for line in drawing.figure.axes[0].lines if line.get_linestyle() == "--"]
    assert len(dashed) == len(PARAMS)
    for line in dashed:
        assert np.min(line.get_xdata()) == SAMPLES[-1]
        assert np.max(line.get_xdata()) == pytest.approx(4 * SAMPLES[-1])


def test_what_a_test_has_covered_is_dashed_without_a_warning(points: pd.DataFrame, fit: LawFit) -> None:
    assert error_vs_data(points, fit, until=2 * SAMPLES[-1], validated=2.0).warnings == []


def test_a_fit_that_did_not_converge_is_not_drawn(points: pd.DataFrame, fit: LawFit, line_fit: LawFit) -> None:
    broken = replace(line_fit, result=replace(line_fit.result, converged=False))
    with pytest.raises(ValueError, match="law 'm2' did not converge: it is not drawn"):
        fitted_line(broken, "samples_seen")
    with pytest.raises(ValueError, match="did not converge: it is not drawn"):
        error_vs_data(points, {PARAMS[0]: broken})
    with pytest.raises(ValueError, match="did not converge: it is not drawn"):
        fitted_surface(replace(fit, result=replace(fit.result, converged=False)))


def test_a_size_without_a_fit_has_points_and_no_law(points: pd.DataFrame, line_fit: LawFit) -> None:
    first, *others = series_of(error_vs_data(points, {PARAMS[0]: line_fit}))
    assert first["line"] is not None
    assert [one["line"] for one in others] == [None] * 3
    assert all(len(one["y"]) == len(SAMPLES) for one in others)


def test_against_parameters_there_is_one_curve_per_number_of_samples(points: pd.DataFrame, fit: LawFit) -> None:
    series = series_of(error_vs_params(points, fit))
    assert [len(one["x"]) for one in series] == [len(PARAMS)] * len(SAMPLES)


def test_the_envelope_stands_on_the_runs_that_make_it(points: pd.DataFrame) -> None:
    found = envelope(points, compute="flops", y="error")
    drawing = error_vs_compute(points, found, until=1e20)
    *_, line = series_of(drawing)
    assert line["label"] == f"envelope: {found.line.scale:.3g} C^{found.line.exponent:.3f}"
    rows = points.loc[[int(name) for name in line["names"]]]
    assert len(rows) == 5
    assert (line["x"], line["y"]) == (rows["flops"].tolist(), rows["error"].tolist())
    crosses = next(one for one in drawing.figure.axes[0].lines if one.get_marker() == "x")
    assert crosses.get_xdata().tolist() == rows["flops"].tolist()
    assert drawing.document()["envelope"]["at"] == found.table["at"].tolist()
    np.testing.assert_allclose(line["line"]["y"], found.line.predict(np.array(line["line"]["x"])))
    assert "flops drawn to" in error_vs_compute(points, found, until=1e20).warnings[0]


def test_an_axis_of_compute_is_labelled_in_the_unit_of_its_own_column(tmp_path: Path) -> None:
    table = example_points().rename(columns={"flops": "gmacs_total"})
    table.to_csv(tmp_path / "theirs.csv", index=False)
    theirs = load_points(tmp_path / "theirs.csv", columns={"flops": "gmacs_total"})
    one_method = theirs[theirs["objective"] == "xtra"]
    labels = [error_vs_compute(rows).figure.axes[0].get_xlabel() for rows in (example_points(), theirs, one_method)]
    assert labels == [f"training compute ({unit})" for unit in ("FLOP", "gmacs_total", "gmacs_total")]

    columns = {"budget": "budget", "params": "params", "y": "error"}
    example_isoflop_points().rename(columns={"budget": "gmacs"}).to_csv(tmp_path / "budgets.csv", index=False)
    rows = load_points(tmp_path / "budgets.csv", columns={"budget": "gmacs"})
    figure = isoflop_parabolas(rows, isoflop(rows, **columns), **columns).figure
    assert figure.axes[1].get_xlabel() == "compute budget (gmacs)"
    assert all(text.get_text().endswith(" gmacs") for text in figure.legends[0].get_texts())


def test_isoflop_parabolas_give_the_known_exponent() -> None:
    columns = {"budget": "budget", "params": "params", "y": "error"}
    table = example_isoflop_points()
    found = isoflop(table, **columns)
    document = isoflop_parabolas(table, found, **columns).document()
    assert [one["budget"] for one in document["budgets"]] == list(BUDGETS)
    assert document["lines"]["params"]["exponent"] == pytest.approx(BETA / (ALPHA + BETA), abs=0.03)
    for one in document["budgets"]:
        (minimum,) = one["minimum"]
        assert min(one["parabola"]["y"]) == pytest.approx(minimum["loss"], rel=1e-3)


def test_a_budget_without_a_minimum_gets_no_parabola_and_a_sentence() -> None:
    table = example_isoflop_points()
    table = table[(table["budget"] != BUDGETS[0]) | (table["params"] < 6e6)]
    columns = {"budget": "budget", "params": "params", "y": "error"}
    drawing = isoflop_parabolas(table, isoflop(table, **columns), **columns)
    assert drawing.document()["budgets"][0]["parabola"] is None
    assert "no minimum inside its" in drawing.warnings[0]


def test_contours_stay_inside_the_data(fit: LawFit) -> None:
    document = iso_loss_contours([fitted_surface(fit)], y="error").document()
    (surface,) = document["surfaces"]
    assert (surface["grid"]["params"][0], surface["grid"]["params"][-1]) == pytest.approx((PARAMS[0], PARAMS[-1]))
    assert (surface["grid"]["samples"][0], surface["grid"]["samples"][-1]) == pytest.approx((SAMPLES[0], SAMPLES[-1]))
    values = np.array(surface["grid"]["value"])
    assert len(document["levels"]) >= 4
    assert all(values.min() < level < values.max() for level in document["levels"])
    assert len(surface["optimum"]["params"]) > 10


@pytest.mark.parametrize(("number", "shape"), [(1, (1, 1)), (4, (1, 4)), (14, (4, 4))])
def test_many_surfaces_stand_in_rows_of_four(fit: LawFit, number: int, shape: tuple[int, int]) -> None:
    figure = iso_loss_contours([fitted_surface(fit)] * number, y="error").figure
    assert sum(axes.get_visible() for axes in figure.axes) == number
    assert figure.axes[0].get_gridspec().get_geometry() == shape
    assert figure.get_figwidth() < 14


def test_the_ratio_of_two_methods_holds_the_known_one() -> None:
    rows = example_points()
    rows = rows[rows["params"] == PARAMS[2]]
    fits = [fit_law(group, law="m2", x="samples_seen", y="error") for _, group in rows.groupby("objective")]
    drawing = efficiency_ratio([ratio_curve("XTRA over AIM", efficiency(fits[1], fits[0]))], over="samples_seen")
    (curve,) = drawing.document()["curves"]
    middle = len(curve["ratio"]) // 2
    assert curve["low"][middle] < 3.0 < curve["high"][middle]
    with pytest.raises(NothingToDrawError, match="no two methods reach a common quality"):
        efficiency_ratio([], over="samples_seen")


def test_residuals_show_every_row_and_ring_outliers(points: pd.DataFrame, fit: LawFit) -> None:
    panels = {name: [fit_residuals("XTRA", fit, name)] for name in X}
    drawing = residual_panels(panels, outliers=["1"])
    document = drawing.document()
    (one,) = document["panels"]["params"]
    np.testing.assert_allclose(one["relative"], points["error"] / fit.predict(points) - 1)
    low, high = drawing.figure.axes[0].get_ylim()
    assert low < min(one["relative"]) and max(one["relative"]) < high
    assert document["outliers"] == ["1"]
    assert "they stay in the fit" in drawing.warnings[0]


def test_an_extrapolation_check_is_solid_below_its_cutoff_only(points: pd.DataFrame) -> None:
    rows = points[points["params"] == PARAMS[0]]
    tests = {law: extrapolation_test(rows, law=law, x="samples_seen", y="error") for law in ("m1", "m2")}
    drawing = extrapolation_checks([checked_laws("5M", rows, tests, y="error")])
    solid = [line for line in drawing.figure.axes[0].lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 9]
    assert len(solid) == 2
    assert all(np.max(line.get_xdata()) <= tests["m1"].cutoff for line in solid)
    (check,) = drawing.document()["checks"]
    assert check["rmse"] == {law: pytest.approx(test.rmse) for law, test in tests.items()}


def test_published_points_stand_on_matching_axes_only(points: pd.DataFrame, fit: LawFit) -> None:
    published = reference_series("params", benchmark="ImageNet-1K", protocol="linear")
    *_, last = series_of(error_vs_params(points, fit, published=published))
    assert last["kind"] == "published"
    assert len(last["x"]) == len(last["names"]) > 10
    with pytest.raises(ValueError, match="published results have no 'flops'"):
        reference_series("flops", benchmark="ImageNet-1K", protocol="linear")


def test_json_holds_null_where_a_number_is_not_finite(tmp_path: Path) -> None:
    table = pd.DataFrame({"quality": [0.3, 0.2], "ratio": [2.0, np.nan], "low": [0.0, np.nan], "high": [np.inf, 3.0]})
    drawing = efficiency_ratio([ratio_curve("a over b", table)], over="params")
    (curve,) = json.loads(drawing.save(tmp_path / "ratio")[-1].read_text())["curves"]
    assert (curve["ratio"], curve["low"], curve["high"]) == ([2.0, None], [None, None], [None, 3.0])


def test_too_many_curves_and_missing_columns_are_refused_in_one_line(points: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="points have no column 'loss'; there are"):
        error_vs_data(points, y="loss")
    with pytest.raises(ValueError, match="can be told apart: choose rows"):
        error_vs_data(points.assign(params=np.arange(1, len(points) + 1)), None)
