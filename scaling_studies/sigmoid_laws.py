"""Laws in one variable between two levels: M4 for errors, chance to ceiling for accuracies."""

from __future__ import annotations

import numpy as np

from scaling_studies.forms import grid, softplus
from scaling_studies.laws import Array, Parameter
from scaling_studies.power_laws import CurveForm

_NEWTON_STEPS = 60
# An a of 0 has no y above y_0; this one acts as 0 below it.
_LEAST_A = 1e-6


class M4(CurveForm):
    """`(y - y_inf) / (y_0 - y)^a = b x^c`: from y_0 without training down to y_inf; a = 0 is M2.

    y is implicit. With `y = y_inf + (y_0 - y_inf) sigmoid(z)` the law reads `z - (1 - a) softplus(z) = t`, t linear in
    log x, whose left side is monotone and concave (a < 1) or convex (a > 1): Newton's method from z = t closes in from
    one side. Internal: y_inf / y_min, y_0 / y_max, a, level of t's line, c. y_0 is at most 1 where every y is.
    """

    name = "m4"
    title = "sigmoidal power law"
    formula = "(y - y_inf) / (y_0 - y)^a = b * x^c"
    source = "M4 of Alabdulmohsin et al. 2022 (arXiv 2209.06640), equation 4"
    parameters = (
        Parameter("y_inf", "error that no amount of x removes", "error"),
        Parameter("y_0", "error before any training", "error"),
        Parameter("a", "how slowly the error leaves y_0; 0: as M2", "1"),
        Parameter("b", "scale", "error^(1 - a)"),
        Parameter("c", "exponent", "1"),
    )

    def __init__(self, x: Array, y: Array) -> None:
        super().__init__(x, y)
        top = 1.0 if self.y_max <= 1 else 10 * self.y_max
        least_top = max(0.9, 0.5 * (self.y_min + self.y_max) / self.y_max)
        self.lower = np.array([0.0, least_top, _LEAST_A, -60.0, -10.0])
        self.upper = np.array([1.0, top / self.y_max, 10.0, 60.0, -1e-3])

    def starts(self) -> Array:
        tops = [min(1.02, self.upper[1]), (1.02 + self.upper[1]) / 2 if self.y_max <= 1 else 2.0]
        rows = grid([0.0, 0.5, 0.95], tops, [0.0, 0.3, 1.0], [0.0], [-0.1, -0.3, -0.8, -2.0])
        floor, top, y = rows[:, 0] * self.y_min, rows[:, 1] * self.y_max, np.exp(self.middle)
        rows[:, 3] = np.log(np.maximum(y - floor, 1e-9 * y)) - rows[:, 2] * np.log(np.maximum(top - y, 1e-9 * y))
        return rows

    def value(self, x: Array, theta: Array) -> Array:
        floor, top, _, _ = self._unpacked(theta)
        return np.log(floor + (top - floor) * _sigmoid(self._solve(x, theta)))

    def value_and_jacobian(self, x: Array, theta: Array) -> tuple[Array, Array]:
        floor, top, a, log_span = self._unpacked(theta)
        z, u = self._solve(x, theta), self.u(x)
        share = _sigmoid(z)
        span = top - floor
        y = floor + span * share
        # dy/dz over the derivative of the left side: how y follows t.
        follow = span * share * (1 - share) / (1 - (1 - a) * share)
        span_slope = -follow * (1 - a) / span
        jacobian = np.stack(
            [
                (1 - share - span_slope) * self.y_min,
                (share + span_slope) * self.y_max,
                follow * (log_span - softplus(z)),
                follow,
                follow * u,
            ],
            axis=1,
        )
        return np.log(y), jacobian / y[:, None]

    def to_params(self, theta: Array) -> Array:
        floor, top, a, level, c = theta.T
        b = np.exp(level - c * np.log(self.x_ref))
        return np.stack([floor * self.y_min, top * self.y_max, np.where(a <= _LEAST_A, 0.0, a), b, c], axis=1)

    def from_params(self, params: Array) -> Array:
        y_inf, y_0, a, b, c = params.T
        return np.stack([y_inf / self.y_min, y_0 / self.y_max, a, np.log(b) + c * np.log(self.x_ref), c], axis=1)

    def _unpacked(self, theta: Array) -> tuple[Array, Array, Array, Array]:
        """y_inf, y_0, a and log(y_0 - y_inf), each `S x 1`."""
        floor, top = theta[:, :1] * self.y_min, theta[:, 1:2] * self.y_max
        return floor, top, np.maximum(theta[:, 2:3], _LEAST_A), np.log(top - floor)

    def _solve(self, x: Array, theta: Array) -> Array:
        _, _, a, log_span = self._unpacked(theta)
        target = theta[:, 3:4] + theta[:, 4:5] * self.u(x) - (1 - a) * log_span
        z = target
        for _ in range(_NEWTON_STEPS):
            step = (target - z + (1 - a) * softplus(z)) / (1 - (1 - a) * _sigmoid(z))
            z = z + step
            if not np.any(np.abs(step) > 1e-13 * (1 + np.abs(z))):
                break
        return z


class ChanceToCeiling(CurveForm):
    """`y = chance + (ceiling - chance) / (1 + (x / x_0)^-k)`: an accuracy that rises with x, fitted on its own scale.

    Internal: chance, ceiling, log(x_0 / x_ref), k. Hold chance where it is known (1 over the number of classes).
    """

    name = "accuracy"
    title = "chance-to-ceiling law"
    formula = "y = chance + (ceiling - chance) / (1 + (x / x_0)^-k)"
    source = "logistic in log x; Ruan et al. 2024 (arXiv 2405.10938), section 3"
    tied = None
    link = "identity"
    falls = False
    parameters = (
        Parameter("chance", "accuracy without any training", "accuracy"),
        Parameter("ceiling", "accuracy that no amount of x exceeds", "accuracy"),
        Parameter("x_0", "x halfway from chance to ceiling", "x"),
        Parameter("k", "steepness", "1"),
    )

    def __init__(self, x: Array, y: Array) -> None:
        super().__init__(x, y)
        self.lower = np.array([0.0, self.y_min, self.u_min - 10.0, 1e-3])
        self.upper = np.array([self.y_max, 1.0, self.u_max + 10.0, 20.0])

    def starts(self) -> Array:
        highs = [self.y_max, (1 + self.y_max) / 2, 1.0]
        return grid([0.0, self.y_min], highs, [self.u_min, 0.0, self.u_max], [0.2, 0.6, 1.5])

    def value(self, x: Array, theta: Array) -> Array:
        chance, ceiling, place, k = (theta[:, i : i + 1] for i in range(4))
        return chance + (ceiling - chance) * _sigmoid(k * (self.u(x) - place))

    def value_and_jacobian(self, x: Array, theta: Array) -> tuple[Array, Array]:
        chance, ceiling, place, k = (theta[:, i : i + 1] for i in range(4))
        distance = self.u(x) - place
        share = _sigmoid(k * distance)
        slope = (ceiling - chance) * share * (1 - share)
        jacobian = np.stack([1 - share, share, -k * slope, distance * slope], axis=1)
        return chance + (ceiling - chance) * share, jacobian

    def to_params(self, theta: Array) -> Array:
        params = theta.copy()
        params[:, 2] = np.exp(theta[:, 2]) * self.x_ref
        return params

    def from_params(self, params: Array) -> Array:
        theta = params.copy()
        theta[:, 2] = np.log(params[:, 2] / self.x_ref)
        return theta


def _sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(z, -500, 500)))
