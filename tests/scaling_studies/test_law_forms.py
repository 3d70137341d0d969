"""Every law: gradient, curvature, its own parameters there and back, and its formula written out."""

from __future__ import annotations

import numpy as np
import pytest

from scaling_studies.coverage import CASES
from scaling_studies.forms import Form
from scaling_studies.law_names import law_for_data
from scaling_studies.laws import Array

FORMULAS = {
    "m1": lambda p, x: p["b"] * x ** p["c"],
    "m2": lambda p, x: p["y_inf"] + p["b"] * x ** p["c"],
    "m3": lambda p, x: p["b"] * (1 / x + p["g"]) ** -p["c"],
    "zhai": lambda p, c: p["a"] * (c + p["d"]) ** -p["b"] + p["c"],
    "bnsl": lambda p, x: p["a"] + p["b"] * x ** -p["c0"] * (1 + (x / p["d1"]) ** (1 / p["f1"])) ** (-p["c1"] * p["f1"]),
    "accuracy": lambda p, x: p["chance"] + (p["ceiling"] - p["chance"]) / (1 + (x / p["x_0"]) ** -p["k"]),
    "parametric": lambda p, n, d: p["E"] + p["A"] / n ** p["alpha"] + p["B"] / d ** p["beta"],
}


def perturbed(form: Form, params: dict[str, float]) -> Array:
    """Internal parameters around known constants, `4 x P`."""
    theta = form.from_params(np.array([list(params.values())]))
    theta = theta + 0.02 * np.random.default_rng(0).standard_normal((4, theta.shape[1]))
    return np.clip(theta, form.lower + 1e-3, form.upper - 1e-3)


@pytest.mark.parametrize("law", CASES)
def test_gradient_and_curvature_are_finite_differences(law: str) -> None:
    case = CASES[law]
    form = law_for_data(law, case.x, case.true_y())
    theta = perturbed(form, {name: case.params[name] for name in form.names()})
    value, jacobian = form.value_and_jacobian(case.x, theta)
    np.testing.assert_allclose(value, form.value(case.x, theta), rtol=1e-12)
    for index in range(theta.shape[1]):
        step = np.zeros(theta.shape[1])
        step[index] = 1e-6
        difference = (form.value(case.x, theta + step) - form.value(case.x, theta - step)) / 2e-6
        # Central differences err by h^2 times the third derivative and by rounding / h.
        np.testing.assert_allclose(jacobian[:, index], difference, rtol=1e-5, atol=1e-7)
    multipliers = np.random.default_rng(1).standard_normal(value.shape)
    np.testing.assert_allclose(
        form.curvature(case.x, theta, multipliers),
        Form.curvature(form, case.x, theta, multipliers),
        rtol=1e-3,
        atol=1e-3,
    )


@pytest.mark.parametrize("law", FORMULAS)
def test_the_curve_is_the_formula_in_its_own_parameters(law: str) -> None:
    case = CASES[law]
    np.testing.assert_allclose(case.true_y(), FORMULAS[law](case.params, *case.x), rtol=1e-10)


def test_m4_solves_its_implicit_formula() -> None:
    case = CASES["m4"]
    y, p = case.true_y(), case.params
    left = (y - p["y_inf"]) / (p["y_0"] - y) ** p["a"]
    np.testing.assert_allclose(left, p["b"] * case.x[0] ** p["c"], rtol=1e-9)


def test_m4_with_a_of_zero_is_m2() -> None:
    x = np.geomspace(1e3, 1e7, 9)[None]
    y = 0.1 + 5 * x[0] ** -0.4
    m4, m2 = (law_for_data(law, x, y) for law in ("m4", "m2"))
    # y_0 far above: a = 0 has no influence of it, the smallest a that is told from 0 has next to none.
    value = m4.value(x, m4.from_params(np.array([[0.1, 0.9, 0.0, 5.0, -0.4]])))
    np.testing.assert_allclose(value, m2.value(x, m2.from_params(np.array([[0.1, 5.0, -0.4]]))), rtol=1e-5)


def test_data_seen_once_by_a_small_model_is_the_parametric_law() -> None:
    params, seen = np.array([1e6, 1e7]), np.array([1e11, 1e12])
    once = law_for_data("data_constrained", np.stack([params, seen, seen]), np.ones(2))
    plain = law_for_data("parametric", np.stack([params, seen]), np.ones(2))
    theta = plain.from_params(np.array([[1.69, 406.4, 410.7, 0.34, 0.28]]))
    repeats = np.concatenate([theta, np.log([[15.39, 5.31]])], axis=1)
    np.testing.assert_allclose(
        once.value(np.stack([params, seen, seen]), repeats), plain.value(np.stack([params, seen]), theta), rtol=1e-12
    )


def test_repeated_data_are_worth_what_muennighoffs_formula_says() -> None:
    p = {"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.353, "beta": 0.353, "R_D*": 15.39, "R_N*": 5.31}
    n, d, u = 8.7e9, 1.8e11, 2.5e10
    g = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    base = min(n, (u * g) ** (p["beta"] / p["alpha"]) * g)
    assert base < n, "the case must have more parameters than suit its unique data"
    d_worth = u * (1 + p["R_D*"] * (1 - np.exp(-(d / u - 1) / p["R_D*"])))
    n_worth = base * (1 + p["R_N*"] * (1 - np.exp(-(n / base - 1) / p["R_N*"])))
    loss = p["E"] + p["A"] / n_worth ** p["alpha"] + p["B"] / d_worth ** p["beta"]
    x = np.array([[n], [d], [u]])
    form = law_for_data("data_constrained", x, np.array([2.0]))
    assert form.predict(x, form.from_params(np.array([list(p.values())])))[0, 0] == pytest.approx(loss, rel=1e-12)
