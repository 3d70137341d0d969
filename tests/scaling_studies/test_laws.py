"""The saturating power law: its gradient, its inverse, its limits."""

from __future__ import annotations

import numpy as np

from scaling_studies.laws import SaturatingPowerLaw

X = np.array([50.0, 400.0, 3_000.0, 90_000.0])
LAW = SaturatingPowerLaw.for_data(X)
PARAMS = np.array([[0.1, 0.2, 0.5], [0.0, 0.6, 0.05], [0.3, 0.01, 2.0]])


def test_gradient_is_the_finite_difference() -> None:
    gradient = LAW.gradient(X, PARAMS)
    assert gradient.shape == (3, 4, 3)
    for index in range(3):
        step = np.zeros(3)
        step[index] = 1e-6
        difference = (LAW.predict(X, PARAMS + step) - LAW.predict(X, PARAMS - step)) / 2e-6
        # Central differences err by h^2 times the third derivative and by rounding / h: both near 1e-9 of the largest.
        np.testing.assert_allclose(gradient[..., index], difference, rtol=1e-6, atol=1e-8)


def test_the_scale_is_the_error_above_the_floor_at_the_smallest_x() -> None:
    np.testing.assert_allclose(LAW.predict(X[:1], PARAMS)[:, 0], PARAMS[:, 0] + PARAMS[:, 1])


def test_repeats_do_not_move_the_reference_x() -> None:
    assert SaturatingPowerLaw.for_data(np.append(X, [50.0, 50.0])) == LAW


def test_inverse_inverts_the_prediction() -> None:
    for params in PARAMS:
        for x, y in zip(X, LAW.predict(X, params), strict=True):
            # Far down the curve an error of one rounding in y is a large one in x.
            np.testing.assert_allclose(LAW.inverse(float(y), params), x, rtol=1e-6)


def test_inverse_is_infinite_at_the_floor_and_below() -> None:
    assert LAW.inverse(0.1, PARAMS[0]) == np.inf
    assert LAW.inverse(0.05, PARAMS[0]) == np.inf


def test_inverse_of_a_flat_curve_is_zero_above_it() -> None:
    assert LAW.inverse(0.2, np.array([0.1, 0.0, 0.5])) == 0.0
