"""Robust regression on a stack of problems at once: `sum_i w_i * huber(value_i - target_i)` inside bounds.

The Huber loss is `r^2 / 2` up to `delta` and `delta * (|r| - delta / 2)` beyond, summed; `delta = inf` is least
squares. Every step tries two: one from the quadratic that lies above the Huber loss (reweighted least squares, sure but
slow) and Newton's (fast near the end), each with its own Levenberg damping, and takes the lower. All problems of a
block step together, those that have converged leave it; blocks fit into the cache and run on all cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling_studies.forms import Form
from scaling_studies.laws import Array

MAX_STEPS = 400
# Converged: a further step would lower the objective by less than this fraction of it ...
TOLERANCE = 1e-13
# ... or by less than this in squared units of the value (log y): far below rounding of any data.
ABSOLUTE_TOLERANCE = 1e-22
# A block of problems times its points: all of its arrays fit into a core's cache.
_BLOCK_ELEMENTS = 32_000
_LEAST_EIGENVALUE = 1e-12
_MOST_DAMPING = 1e12
# Fraction of the objective that a step may promise and not keep because of rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Problem:
    """Data of a stack: `x` `V x n`; `target` and `weight` `S x n` (or `n`, shared); bounds `S x P` or `P`."""

    form: Form
    x: Array
    target: Array
    weight: Array
    delta: float
    lower: Array
    upper: Array

    def rows(self, index: slice | NDArray[np.intp]) -> Problem:
        """The same for some rows of the stack."""
        stacks = (self.target, self.weight, self.lower, self.upper)
        target, weight, lower, upper = (values if values.ndim == 1 else values[index] for values in stacks)
        return Problem(self.form, self.x, target, weight, self.delta, lower, upper)

    def objective(self, theta: Array) -> Array:
        """The minimised sum, `S`; inf where the law has no finite value."""
        total = np.sum(self.weight * huber(self.form.value(self.x, theta) - self.target, self.delta), axis=1)
        return np.where(np.isfinite(total), total, np.inf)


@dataclass(frozen=True)
class Minima:
    """Where each problem of a stack ended: `theta` (`S x P`), `objective` and `converged` (`S`)."""

    theta: Array
    objective: Array
    converged: NDArray[np.bool_]


def huber(residual: Array, delta: float) -> Array:
    """Huber loss of every residual."""
    size = np.abs(residual)
    inner = np.minimum(size, delta)
    return inner * (size - 0.5 * inner)


def minimise(problem: Problem, starts: Array, *, max_steps: int = MAX_STEPS) -> Minima:
    """Minimise the objective from every row of `starts` (`S x P`), one problem of the stack each."""
    return _in_blocks(_minimise_block, problem, starts, max_steps)


def settle(problem: Problem, starts: Array, *, max_steps: int) -> Minima:
    """Least squares from every start to a loose end: which valley a start leads to, not yet its lowest point."""
    return _in_blocks(_settle_block, problem, starts, max_steps)


def _in_blocks(solve: Callable[[Problem, Array, int], Minima], problem: Problem, starts: Array, steps: int) -> Minima:
    size = max(1, _BLOCK_ELEMENTS // problem.x.shape[1])
    slices = [slice(first, first + size) for first in range(0, len(starts), size)]
    clipped = np.clip(starts, problem.lower, problem.upper)
    if len(slices) == 1:
        return _quietly(solve, problem, clipped, steps)
    with np.errstate(all="ignore"), ThreadPoolExecutor(min(len(slices), os.cpu_count() or 1)) as pool:
        parts = list(pool.map(lambda rows: _quietly(solve, problem.rows(rows), clipped[rows], steps), slices))
    return Minima(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("theta", "objective", "converged"))
    )


def _quietly(solve: Callable[[Problem, Array, int], Minima], problem: Problem, starts: Array, steps: int) -> Minima:
    # numpy keeps this setting per thread. A start far off may overflow: its objective is inf and the step is refused.
    with np.errstate(all="ignore"):
        return solve(problem, starts, steps)


def _settle_block(problem: Problem, starts: Array, max_steps: int) -> Minima:
    """Levenberg-Marquardt with one evaluation a step, stopped when a step gains less than a thousandth."""
    theta = starts.copy()
    num = len(theta)
    objective, gradient, hessian = _least_squares_terms(problem, theta)
    damping, active, settled = np.full(num, 1e-2), np.arange(num), np.zeros(num, dtype=bool)
    for _ in range(max_steps):
        part = problem.rows(active)
        step, gain = _gauss_newton_step(
            theta[active], gradient[active], hessian[active], damping[active], part.lower, part.upper
        )
        done = (gain <= 1e-3 * objective[active] + ABSOLUTE_TOLERANCE) & (damping[active] < 1)
        settled[active[done]] = True
        active, step, part = active[~done], step[~done], problem.rows(active[~done])
        if not len(active):
            break
        proposal = np.clip(theta[active] + step, part.lower, part.upper)
        new_objective, new_gradient, new_hessian = _least_squares_terms(part, proposal)
        better = new_objective < objective[active]
        rows = active[better]
        theta[rows], objective[rows] = proposal[better], new_objective[better]
        gradient[rows], hessian[rows] = new_gradient[better], new_hessian[better]
        damping[active] = np.clip(np.where(better, damping[active] / 8, damping[active] * 6), 1e-9, 1e12)
    return Minima(theta, objective, settled)


def _gauss_newton_step(
    theta: Array, gradient: Array, hessian: Array, damping: Array, lower: Array, upper: Array
) -> tuple[Array, Array]:
    """The damped step (`S x P`) and the gain that it promises (`S`); quicker than `_damped_step`, for J'J only."""
    held = _held(theta, gradient, lower, upper)
    gradient = np.where(held, 0.0, gradient)
    matrix = np.where(held[:, :, None] | held[:, None, :], 0.0, hessian)
    diagonal = np.einsum("spp->sp", matrix)
    diagonal += np.where(held, 1.0, damping[:, None] * diagonal + 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-150)
    step = np.asarray(np.linalg.solve(matrix, -gradient[..., None])[..., 0], dtype=np.float64)
    gain: Array = -0.5 * np.einsum("sp,sp->s", step, gradient)
    return step, gain


def _held(theta: Array, gradient: Array, lower: Array, upper: Array) -> NDArray[np.bool_]:
    """Parameters at a bound that the gradient pushes outwards, and fixed ones: they leave the linear system."""
    return ((theta <= lower) & (gradient > 0)) | ((theta >= upper) & (gradient < 0)) | (lower == upper)


def _least_squares_terms(problem: Problem, theta: Array) -> tuple[Array, Array, Array]:
    """Sum of squares (`S`), its gradient (`S x P`) and Gauss-Newton matrix (`S x P x P`), all of half the sum."""
    value, jacobian = problem.form.value_and_jacobian(problem.x, theta)
    root = np.sqrt(problem.weight)
    residual = (value - problem.target) * root
    if not np.all(problem.weight == 1):
        jacobian = jacobian * (root if root.ndim == 1 else root[:, None])
    objective = 0.5 * np.einsum("sn,sn->s", residual, residual)
    gradient = (jacobian @ residual[:, :, None])[..., 0]
    hessian = jacobian @ jacobian.transpose(0, 2, 1)
    finite = np.isfinite(objective) & np.isfinite(hessian).all(axis=(1, 2))
    return np.where(finite, objective, np.inf), np.nan_to_num(gradient), np.nan_to_num(hessian)


def _minimise_block(problem: Problem, starts: Array, max_steps: int) -> Minima:
    theta, num = starts.copy(), len(starts)
    objective = problem.objective(theta)
    damping = np.full((2, num), 1e-3)
    active, converged = np.arange(num), np.zeros(num, dtype=bool)
    for _ in range(max_steps):
        part = problem.rows(active)
        steps, gain = _two_steps(part, theta[active], damping[:, active])
        done = gain <= TOLERANCE * objective[active] + ABSOLUTE_TOLERANCE
        converged[active[done]] = True
        active, steps, part = active[~done], steps[:, ~done], problem.rows(active[~done])
        if not len(active):
            break
        proposals = np.clip(theta[active] + steps, part.lower, part.upper)
        reached = np.stack([part.objective(proposal) for proposal in proposals])
        better = reached < objective[active]
        factor = np.where(better, 0.2, 5.0)
        damping[:, active] = np.clip(damping[:, active] * factor, 1e-12, _MOST_DAMPING)
        best = np.argmin(reached, axis=0)
        rows = np.flatnonzero(better.any(axis=0))
        theta[active[rows]] = proposals[best[rows], rows]
        objective[active[rows]] = reached[best[rows], rows]
        # Steps of the size of rounding are refused for ever. Where little was promised, rounding is all that is left.
        stuck = (damping[:, active] >= _MOST_DAMPING).all(axis=0)
        converged[active[stuck & (gain[~done] <= _ROUNDING * objective[active])]] = True
        active = active[~stuck]
        if not len(active):
            break
    return Minima(theta, objective, converged & np.isfinite(objective))


def _two_steps(problem: Problem, theta: Array, damping: Array) -> tuple[Array, Array]:
    """The step from the quadratic above the loss and Newton's (`2 x S x P`), and what Newton's is to gain (`S`)."""
    value, jacobian = problem.form.value_and_jacobian(problem.x, theta)
    residual = value - problem.target
    size = np.abs(residual)
    slope = problem.weight * np.clip(residual, -problem.delta, problem.delta)
    gradient = (jacobian @ slope[:, :, None])[..., 0]
    inside = problem.weight * (size <= problem.delta)
    above = problem.weight * np.minimum(1.0, problem.delta / np.maximum(size, 1e-300))
    upper_quadratic = (jacobian * above[:, None]) @ jacobian.transpose(0, 2, 1)
    newton = (jacobian * inside[:, None]) @ jacobian.transpose(0, 2, 1)
    newton += problem.form.curvature(problem.x, theta, slope)
    first, _ = _damped_step(theta, gradient, upper_quadratic, damping[0], problem.lower, problem.upper)
    scale = np.sqrt(np.einsum("spp->sp", upper_quadratic))
    second, gain = _damped_step(theta, gradient, newton, damping[1], problem.lower, problem.upper, scale)
    return np.stack([first, second]), gain


def _damped_step(
    theta: Array,
    gradient: Array,
    hessian: Array,
    damping: Array,
    lower: Array,
    upper: Array,
    scale: Array | None = None,
) -> tuple[Array, Array]:
    """The damped step (`S x P`) and the gain that an undamped one promises (`S`).

    Parameters are scaled by the diagonal (or `scale`). Directions of negative curvature are walked downhill.
    """
    held = _held(theta, gradient, lower, upper)
    scale = np.sqrt(np.einsum("spp->sp", hessian)) if scale is None else scale
    scale = np.maximum(scale, 1e-8 * scale.max(axis=1, keepdims=True) + 1e-150)
    scaled_gradient = np.where(held, 0.0, gradient / scale)
    matrix = hessian / (scale[:, :, None] * scale[:, None, :])
    matrix = np.where(held[:, :, None] | held[:, None, :], np.eye(theta.shape[1]), matrix)
    values, vectors = np.linalg.eigh(np.nan_to_num(matrix))
    along = np.einsum("spk,sp->sk", vectors, scaled_gradient)
    size = np.maximum(np.abs(values), _LEAST_EIGENVALUE)
    step = -np.einsum("spk,sk->sp", vectors, along / (size + damping[:, None])) / scale
    return step, 0.5 * np.sum(along**2 / size, axis=1)
