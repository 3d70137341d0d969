"""`fit_law`: known constants come back from every law, minima are scipy's or lower, doubts are said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import curve_fit, minimize
from scipy.special import huber, logsumexp

from scaling_studies import LawFit, fit_law
from scaling_studies.coverage import CASES
from scaling_studies.extent import ScoredReach
from scaling_studies.intervals import Samples
from scaling_studies.laws import Array
from scaling_studies.loss_laws import Parametric

GRID = ("x0", "x1")


@pytest.fixture(scope="module")
def noisy() -> dict[str, Array]:
    return CASES["parametric"].points(np.random.default_rng(0))


@pytest.fixture(scope="module")
def parametric(noisy: dict[str, Array]) -> LawFit:
    return fit_law(noisy, law="parametric", x=GRID, y="y")


@pytest.mark.parametrize("law", [law for law in CASES if law != "data_constrained"])
def test_points_on_the_law_give_its_constants_back(law: str) -> None:
    case = CASES[law]
    fit = fit_law(case.points(), law=law, x=case.x_names(), y="y")
    assert fit.params == pytest.approx(case.params, rel=1e-4)
    assert fit.objective < 1e-12
    np.testing.assert_allclose(fit.predict(*case.x), case.true_y(), rtol=1e-6)


@pytest.mark.parametrize("law", ["m1", "m2", "m3", "zhai", "accuracy"])
def test_least_squares_agree_with_scipys_curve_fit(law: str) -> None:
    case = CASES[law]
    points = case.points(np.random.default_rng(1))
    fit = fit_law(points, law=law, x="x0", y="y")
    form = fit.form

    def value(x: Array, *theta: float) -> Array:
        return form.value(x[None], np.array([theta]))[0]

    start = form.from_params(np.array([[case.params[name] for name in form.names()]]))[0]
    theirs, _ = curve_fit(value, points["x0"], form.linked(points["y"]), p0=start, xtol=1e-12, ftol=1e-12)
    assert list(fit.params.values()) == pytest.approx(list(form.to_params(theirs[None])[0]), rel=1e-4)


def test_the_parametric_minimum_is_that_of_the_published_recipe(noisy: dict[str, Array], parametric: LawFit) -> None:
    log_n, log_d, log_y = (np.log(noisy[name]) for name in ("x0", "x1", "y"))

    def objective(theta: Array) -> float:
        e, a, b, alpha, beta = theta
        terms = [np.full_like(log_n, e), a - alpha * log_n, b - beta * log_d]
        return float(np.sum(huber(1e-3, logsumexp(terms, axis=0) - log_y)))

    starts = Parametric(np.stack([log_n, log_d]), log_y).starts()
    assert len(starts) == 4500
    assert parametric.result.num_starts == 4500
    theirs = min((minimize(objective, start, method="L-BFGS-B") for start in starts[::450]), key=lambda fit: fit.fun)
    assert parametric.objective <= theirs.fun * (1 + 1e-9)
    p = parametric.params
    theta = np.array([*np.log([p["E"], p["A"], p["B"]]), p["alpha"], p["beta"]])
    assert parametric.objective == pytest.approx(objective(theta), rel=1e-9)


def test_the_same_points_give_the_same_fit_bit_for_bit(noisy: dict[str, Array], parametric: LawFit) -> None:
    again = fit_law(noisy, law="parametric", x=GRID, y="y")
    assert again.params == parametric.params
    assert again.samples(num_samples=20).theta.tobytes() == parametric.samples(num_samples=20).theta.tobytes()


def test_intervals_hold_the_estimate_and_widen_with_the_level(parametric: LawFit) -> None:
    for method in ("cases", "residuals", "profile"):
        low, high = parametric.interval("alpha", 0.95, method=method)
        inner_low, inner_high = parametric.interval("alpha", 0.5, method=method)
        assert low < inner_low < parametric.params["alpha"] < inner_high < high


def learning_curves(num_runs: int) -> pd.DataFrame:
    points = pd.DataFrame(CASES["m2"].points(np.random.default_rng(0)))
    # A run's rows share an error of their own: taken as independent rows they promise too much.
    points["run"] = np.arange(len(points)) % num_runs
    points["y"] *= np.exp(0.05 * np.random.default_rng(1).standard_normal(num_runs))[points["run"]]
    return points


def test_rows_of_a_run_are_resampled_together_unless_told_otherwise() -> None:
    fit = fit_law(learning_curves(8), law="m2", x="x0", y="y")
    assert fit.default_method == "runs"
    assert fit.interval("c") == fit.interval("c", method="runs")
    by_rows, by_runs = (np.ptp(fit.band(1e6, method=method)) for method in ("noise", None))
    assert by_runs > by_rows
    assert not any("run" in text for text in fit.warnings)
    says = "the 24 rows come from 8 runs and are taken as independent by 'noise': the intervals are too narrow"
    assert says in fit.warnings_for("noise")


def test_too_few_runs_to_resample_are_said() -> None:
    several = fit_law(learning_curves(4), law="m2", x="x0", y="y")
    assert "the intervals are resampled from 4 runs only: they may be too narrow" in several.warnings
    one = fit_law(learning_curves(1), law="m2", x="x0", y="y")
    assert one.default_method == "noise"
    assert any(text.startswith("the 24 rows come from 1 run and are taken as independent") for text in one.warnings)


@pytest.mark.parametrize("name", ["c", "b"])
def test_a_profile_of_a_line_is_students_interval(name: str) -> None:
    points = CASES["m1"].points(np.random.default_rng(2))
    fit = fit_law(points, law="m1", x="x0", y="y")
    design = np.stack([np.ones(24), np.log(points["x0"])], axis=1)
    (intercept, slope), (rss,), _, _ = np.linalg.lstsq(design, np.log(points["y"]), rcond=None)
    spread = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * rss / 22) * 2.0738730679
    sides = np.array([-1.0, 1.0])
    expected = np.exp(intercept + spread[0] * sides) if name == "b" else slope + spread[1] * sides
    assert fit.interval(name) == pytest.approx(tuple(expected), rel=1e-4)


@pytest.mark.parametrize("num_points", [3, 5])
def test_the_band_of_a_line_through_few_points_is_students(num_points: int) -> None:
    points = {
        name: values[:: 23 // (num_points - 1)][:num_points]
        for name, values in CASES["m1"].points(np.random.default_rng(2)).items()
    }
    fit = fit_law(points, law="m1", x="x0", y="y")
    log_x, log_y = np.log(points["x0"]), np.log(points["y"])
    design = np.stack([np.ones(num_points), log_x], axis=1)
    _, (rss,), _, _ = np.linalg.lstsq(design, log_y, rcond=None)
    place = np.array([1.0, log_x.max()])
    spread = np.sqrt(place @ np.linalg.inv(design.T @ design) @ place * rss / (num_points - 2))
    low, high = fit.band(points["x0"].max())
    # The end of 95% of Student's t with 1 degree of freedom is known to a fifth from 1,000 samples.
    assert np.log(high / low) / 2 / spread == pytest.approx(stats.t.ppf(0.975, num_points - 2), rel=0.25)


def test_few_degrees_of_freedom_are_said() -> None:
    line = CASES["m1"].points(np.random.default_rng(2))
    few = {name: values[::8] for name, values in line.items()}
    said = fit_law(few, law="m1", x="x0", y="y").warnings
    assert any("the noise is judged from 1 degree of freedom" in text for text in said)
    said = fit_law(few, law="m1", x="x0", y="y", huber_delta=0.01).warnings
    assert any("cases are drawn from 1 degree of freedom" in text for text in said)
    assert fit_law(line, law="m1", x="x0", y="y").warnings == []


def test_m4_converges_where_a_of_zero_is_best() -> None:
    x = np.geomspace(1e4, 1e8, 10)
    noise = np.exp(0.005 * np.random.default_rng(0).standard_normal((2, 10))[1])
    fit = fit_law({"x": x, "y": (0.1 + 3 * (x / 3) ** -0.3) * noise}, law="m4", x="x", y="y")
    assert fit.params["a"] == 0.0
    assert fit.result.num_converged == fit.result.num_starts


def test_held_parameters_stay_and_leave_the_count() -> None:
    points = CASES["m4"].points()
    fit = fit_law(points, law="m4", x="x0", y="y", fixed={"y_0": 0.9})
    assert fit.params == pytest.approx(CASES["m4"].params, rel=1e-4)
    assert (fit.num_free, fit.interval("y_0")) == (4, (fit.params["y_0"], fit.params["y_0"]))
    with pytest.raises(ValueError, match="fixed: 'b' cannot be held in law 'm4'; these can: y_inf, y_0, a, c"):
        fit_law(points, law="m4", x="x0", y="y", fixed={"b": 60.0})


def test_freed_repeat_constants_are_found() -> None:
    case = CASES["data_constrained"]
    fit = fit_law(case.points(), law="data_constrained", x=case.x_names(), y="y", fixed={})
    assert fit.num_free == 7
    assert fit.params == pytest.approx(case.params, rel=1e-3)


def test_an_outlier_is_flagged_and_kept() -> None:
    points = pd.DataFrame(CASES["parametric"].points(np.random.default_rng(0))).set_axis(range(100, 164))
    points.loc[120, "y"] *= 1.1
    fit = fit_law(points, law="parametric", x=GRID, y="y")
    assert fit.outliers == [120]
    assert len(fit.residuals) == 64
    assert any("1 of 64 rows lie far off the law (kept): 120" in text for text in fit.warnings)


def test_what_the_data_do_not_determine_is_said() -> None:
    x = np.geomspace(1e3, 1e6, 12)
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal(12))
    fit = fit_law({"x": x, "y": 2 * x**-0.3 * noise}, law="zhai", x="x", y="y")
    assert "d" in fit.undetermined()
    clear = CASES["m2"]
    assert fit_law(clear.points(np.random.default_rng(0)), law="m2", x="x0", y="y").undetermined() == {}


def test_a_huber_fits_intervals_and_its_undetermined_parameters_agree() -> None:
    # Eleven points of a law in two variables: sizes and samples that a table of others may have.
    sizes, seen = np.meshgrid([1.5e8, 4.3e8], [3e9, 1.3e10, 3.4e10])
    noise = np.exp(0.01 * np.random.default_rng(4).standard_normal(6))
    table = {"n": sizes.ravel(), "d": seen.ravel(), "y": (0.05 + 40 / sizes**0.3 + 40 / seen**0.25).ravel() * noise}
    fit = fit_law(table, "parametric", x=("n", "d"), y="y")
    said = fit.undetermined()
    for name in ("A", "B", "alpha", "beta"):
        low, high = fit.interval(name)
        assert (name in said) or high <= (100 if name in "AB" else 3) * low
    assert {"A", "alpha"} <= set(said)


def test_lost_bootstrap_samples_are_counted_and_said() -> None:
    fit = fit_law(CASES["m2"].points(np.random.default_rng(0)), law="m2", x="x0", y="y")
    assert "intervals: profile" in fit.summary()
    assert "intervals: 1000 bootstrap samples, 1000 converged" in fit.summary(method="noise")
    assert not any("did not converge" in text for text in fit.warnings_for("noise"))
    samples = fit.samples("noise")
    fit._samples["noise", 1000] = Samples(samples.theta[:859], 1000)
    says = "141 of 1,000 bootstrap samples did not converge and are left out of the intervals"
    assert says in fit.warnings_for("noise")


def test_one_high_point_above_a_plateau_is_fitted_with_all_its_samples() -> None:
    points = {"x": [2.0, 16.0, 128.0, 1000.0], "error": [0.31, 0.21, 0.198, 0.205], "sigma": [0.015] * 4}
    fit = fit_law(points, "m2", x="x", y="error", sigma="sigma", scale="linear")
    # In the middle of the data the scale of a steep fall runs off to 0, and a fifth of the samples did not converge.
    assert len(fit.samples().theta) >= 990


def test_a_curve_that_is_flat_by_chance_has_samples_that_fall_and_says_what_is_open() -> None:
    points = {"x": [2.0, 16.0, 128.0, 1000.0], "error": [0.335, 0.333, 0.341, 0.334], "sigma": [0.017] * 4}
    fit = fit_law(points, "m2", x="x", y="error", sigma="sigma", scale="linear")
    # The best curve is level: its samples must find their falls from starts of their own.
    low, high = fit.interval("y_inf")
    assert low < 0.3 < high
    assert (
        fit.undetermined()["y_inf"] == "y_inf is not determined by these points: its interval fills the allowed range"
    )
    assert "c" in fit.undetermined()


def test_on_the_linear_scale_an_error_of_zero_stands() -> None:
    points = {"x": np.geomspace(10, 1e5, 5), "error": [0.1, 0.02, 0.004, 0.0, 0.0], "sigma": [0.01] * 5}
    fit = fit_law(points, "m2", x="x", y="error", sigma="sigma", scale="linear")
    assert fit.params["y_inf"] == pytest.approx(0.0, abs=1e-3)
    assert fit.residuals == pytest.approx(fit.predict(points["x"]) - np.array(points["error"]))
    with pytest.raises(ValueError, match=r"row 3, column error: 0.0 is 0, which has no logarithm"):
        fit_law(points, "m2", x="x", y="error")
    with pytest.raises(ValueError, match="law 'accuracy' is fitted on the linear scale only"):
        fit_law(points, "accuracy", x="x", y="error", scale="log")


def test_least_squares_on_the_linear_scale_agree_with_scipys_curve_fit() -> None:
    points = CASES["m2"].points(np.random.default_rng(3))
    sigma = 0.02 * points["y"]
    fit = fit_law(points | {"sigma": sigma}, "m2", x="x0", y="y", sigma="sigma", scale="linear")

    def curve(x: Array, y_inf: float, log_b: float, c: float) -> Array:
        return y_inf + np.exp(log_b) * x**c

    found, _ = curve_fit(curve, points["x0"], points["y"], p0=[0.08, 0.7, -0.3], sigma=sigma, xtol=1e-12, ftol=1e-12)
    assert list(fit.params.values()) == pytest.approx([found[0], np.exp(found[1]), found[2]], rel=1e-4)


def test_prediction_takes_arrays_and_tables(noisy: dict[str, Array], parametric: LawFit) -> None:
    by_arrays = parametric.predict(noisy["x0"], noisy["x1"])
    np.testing.assert_array_equal(parametric.predict(pd.DataFrame(noisy)), by_arrays)
    assert parametric.predict(1e8, [1e9, 1e10]).shape == (2,)
    low, high = parametric.band(noisy["x0"][:3], noisy["x1"][:3])
    assert np.all((low < by_arrays[:3]) & (by_arrays[:3] < high))
    with pytest.raises(ValueError, match="fitted over x0, x1: got 1 arrays"):
        parametric.predict(noisy["x0"])
    np.testing.assert_array_equal(parametric.predict(x1=noisy["x1"], x0=noisy["x0"]), by_arrays)
    with pytest.raises(ValueError, match="fitted over x0, x1: got x0, x2"):
        parametric.predict(x0=1e8, x2=1e9)
    with pytest.raises(ValueError, match="name all variables \\(x0, x1\\) or none, got x1"):
        parametric.predict(1e8, x1=1e9)


def test_going_beyond_the_data_is_said(parametric: LawFit) -> None:
    assert parametric.extrapolation(1e9, 1e11) is None
    tested = ScoredReach("x1", 2.0, rmse=0.01)
    said = parametric.extrapolation(1e9, 4e12, tested=tested)
    assert said == "x1 goes 4 times beyond the data: a factor of 2 was validated (log error 0.01)"
    assert parametric.extrapolation(1e9, 2e12, tested=tested) is None


def test_a_test_validates_its_own_variable_upward_and_nothing_where_it_missed(parametric: LawFit) -> None:
    tested = ScoredReach("x1", 4.0, rmse=0.01)
    for place, says in (
        ((2e10, 1e10), "x0 goes 2 times beyond the data: a factor of 4 in x1 was validated (log error 0.01)"),
        ((1e9, 5e7), "x1 goes 2 times beyond the data: a factor of 4 was validated (log error 0.01)"),
        ((2e10, 2e12), "x0 x x1 goes 4 times beyond the data: a factor of 4 in x1 was validated (log error 0.01)"),
    ):
        assert parametric.extrapolation(*place, tested=tested) == says
    missed = parametric.extrapolation(1e9, 2e12, tested=ScoredReach("x1", 4.0, rmse=0.83))
    assert missed == (
        "x1 goes 2 times beyond the data: no extrapolation was validated, a test over a factor of 4 missed (log error "
        "0.83)"
    )


def test_summary_names_everything(parametric: LawFit) -> None:
    text = parametric.summary()
    for expected in ("parametric law", "Hoffmann", "64 points", "Huber", "starts: 4500", "alpha = ", "E = "):
        assert expected in text
