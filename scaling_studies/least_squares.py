"""Bounded weighted least squares on a stack of problems at once: Levenberg-Marquardt with active bounds.

scipy solves one problem a call, at milliseconds each; a study needs tens of thousands (starts x bootstrap samples x
curves), so all of them step together here. The tests hold the minima against `scipy.optimize.least_squares`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling_studies.laws import Array, Law

MAX_STEPS = 500
# A further step would improve the sum of squares by less than this fraction of it ...
RELATIVE_TOLERANCE = 1e-11
# ... or by less than this, in squared standard errors: far below anything that the data can tell.
ABSOLUTE_TOLERANCE = 1e-16


@dataclass(frozen=True)
class Minimum:
    """Where each problem of a stack ended: `params` (`S x P`), weighted sum of squares `chi2` and `converged` (`S`)."""

    params: Array
    chi2: Array
    converged: NDArray[np.bool_]


def minimise(law: Law, x: Array, y: Array, sigma: Array, starts: Array, lower: Array, upper: Array) -> Minimum:
    """Minimise `sum(((law(x) - y) / sigma)^2)` inside the bounds, once for every row of `starts`.

    `x` and `sigma` have shape `n`, `y` has shape `S x n` (or `n`: the same for all), `starts` `S x P`, bounds `P`.
    """
    params = np.clip(starts, lower, upper)
    y = np.broadcast_to(y, (len(params), len(x)))
    chi2 = _chi2(law, x, y, sigma, params)
    damping = np.full(len(params), 1e-3)
    converged = np.zeros(len(params), dtype=bool)
    active = np.arange(len(params))
    for _ in range(MAX_STEPS):
        step, expected_gain = _step(law, x, y[active], sigma, params[active], damping[active], lower, upper)
        done = expected_gain <= RELATIVE_TOLERANCE * chi2[active] + ABSOLUTE_TOLERANCE
        converged[active[done]] = True
        active, step = active[~done], step[~done]
        if not len(active):
            break
        proposal = np.clip(params[active] + step, lower, upper)
        proposal_chi2 = _chi2(law, x, y[active], sigma, proposal)
        better = proposal_chi2 < chi2[active]
        params[active[better]], chi2[active[better]] = proposal[better], proposal_chi2[better]
        damping[active] = np.clip(np.where(better, damping[active] / 5, damping[active] * 4), 1e-12, 1e12)
    return Minimum(params, chi2, converged)


def _chi2(law: Law, x: Array, y: Array, sigma: Array, params: Array) -> Array:
    return np.sum(((law.predict(x, params) - y) / sigma) ** 2, axis=-1)


def _step(
    law: Law, x: Array, y: Array, sigma: Array, params: Array, damping: Array, lower: Array, upper: Array
) -> tuple[Array, Array]:
    """The damped Gauss-Newton step (`S x P`), and the gain that the linear model expects of an undamped one (`S`)."""
    residual = (law.predict(x, params) - y) / sigma
    jacobian = law.gradient(x, params) / sigma[:, None]
    gradient = np.einsum("snp,sn->sp", jacobian, residual)
    # A parameter at a bound that the gradient pushes outwards stays there: it leaves the linear system.
    held = ((params <= lower) & (gradient > 0)) | ((params >= upper) & (gradient < 0))
    gradient = np.where(held, 0.0, gradient)
    normal = np.einsum("snp,snq->spq", jacobian, jacobian)
    normal = np.where(held[:, :, None] | held[:, None, :], 0.0, normal)
    diagonal = np.einsum("spp->sp", normal)
    # A direction that the data do not see (b = 0 hides alpha) has no curvature; the ridge keeps the system solvable.
    ridge = np.where(held, 1.0, 1e-12 * diagonal.max(axis=-1, keepdims=True) + 1e-30)
    eye = np.eye(params.shape[-1])
    newton = np.linalg.solve(normal + ridge[:, :, None] * eye, -gradient[..., None])[..., 0]
    damped = normal + (ridge + damping[:, None] * diagonal)[:, :, None] * eye
    step = np.linalg.solve(damped, -gradient[..., None])[..., 0]
    return step, -np.einsum("sp,sp->s", gradient, newton)
