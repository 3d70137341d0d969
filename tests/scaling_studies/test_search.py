"""The batched minimizer and the search from many starts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from scaling_studies.coverage import CASES
from scaling_studies.law_names import law_for_data
from scaling_studies.robust import Problem, huber, minimise
from scaling_studies.search import search, spread_points


def problem_of(law: str, delta: float, seed: int = 0) -> Problem:
    case = CASES[law]
    y = case.points(np.random.default_rng(seed))["y"]
    form = law_for_data(law, case.x, y)
    return Problem(form, case.x, form.linked(y), np.ones(len(y)), delta, form.lower, form.upper)


def test_huber_is_quadratic_inside_and_linear_outside() -> None:
    np.testing.assert_allclose(huber(np.array([0.5, -2.0]), 1.0), [0.125, 1.5])
    np.testing.assert_allclose(huber(np.array([3.0]), np.inf), [4.5])


@pytest.mark.parametrize("delta", [1e-3, 0.02, np.inf])
@pytest.mark.parametrize("law", ["m2", "m3", "m4", "parametric"])
def test_no_start_of_scipys_ends_lower(law: str, delta: float) -> None:
    problem = problem_of(law, delta)
    starts = problem.form.starts()
    ours = search(problem, starts)
    assert ours.converged

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, jacobian = problem.form.value_and_jacobian(problem.x, theta[None])
        residual = value[0] - problem.target
        return float(huber(residual, delta).sum()), jacobian[0] @ np.clip(residual, -delta, delta)

    bounds = list(zip(problem.lower, problem.upper, strict=True))
    chosen = np.clip(starts[:: max(1, len(starts) // 12)], problem.lower, problem.upper)
    theirs = min(minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds).fun for start in chosen)
    assert ours.objective <= theirs * (1 + 1e-9)


def test_a_stack_ends_where_each_problem_ends_alone() -> None:
    problem = problem_of("parametric", 1e-3)
    starts = np.clip(problem.form.starts()[::500], problem.lower, problem.upper)
    stacked = minimise(problem, starts)
    for row, start in enumerate(starts):
        alone = minimise(problem, start[None])
        # Sums of a stack may run in another order; minima are equal to rounding.
        assert stacked.objective[row] == pytest.approx(alone.objective[0], rel=1e-9)


def test_every_start_is_accounted_for() -> None:
    problem = problem_of("bnsl", np.inf)
    found = search(problem, problem.form.starts())
    assert 1 <= found.num_at_best <= found.num_converged <= found.num_starts == len(problem.form.starts())
    assert found.alternatives.shape[1] == 6
    np.testing.assert_array_equal(found.alternatives[0], found.theta)


def test_spread_points_hold_the_extremes_and_no_point_twice() -> None:
    x = np.exp(np.random.default_rng(0).uniform(0, 5, (2, 200)))
    chosen = spread_points(x, 20)
    assert len(set(chosen)) == 20
    assert int(np.argmin(x[0])) in chosen
    np.testing.assert_array_equal(spread_points(x[:, :10], 20), np.arange(10))
