"""Laws in model size and data: the parametric law of Hoffmann et al., and the one with repeated data of Muennighoff et
al.

Both are sums of three terms, taken in logarithms: `log y = logsumexp(e, a - alpha log N, b - beta log D)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from scaling_studies.forms import Form, grid
from scaling_studies.laws import Array, Parameter

HUBER_DELTA = 1e-3


class Parametric(Form):
    """`L = E + A / N^alpha + B / D^beta`; internal parameters `(e, a, b, alpha, beta)` with `E = exp(e)` and so on.

    Hoffmann et al. 2022 (arXiv 2203.15556), approach 3 (section 3.3, appendix D.3): Huber loss of log L, summed, from
    the full grid of starts. The centring is left out on purpose: the starts of the recipe are in these coordinates.
    """

    name: ClassVar[str] = "parametric"
    title: ClassVar[str] = "parametric law"
    formula: ClassVar[str] = "L = E + A / N^alpha + B / D^beta"
    source: ClassVar[str] = "Hoffmann et al. 2022 (arXiv 2203.15556), approach 3"
    variables: ClassVar[tuple[str, ...]] = ("N", "D")
    huber_delta: ClassVar[float] = HUBER_DELTA

    parameters: tuple[Parameter, ...] = (
        Parameter("E", "loss that neither size nor data removes", "loss"),
        Parameter("A", "scale of the term in N", "loss * N^alpha"),
        Parameter("B", "scale of the term in D", "loss * D^beta"),
        Parameter("alpha", "exponent of N", "1"),
        Parameter("beta", "exponent of D", "1"),
    )

    def __init__(self, x: Array, y: Array) -> None:
        self.lower = np.array([-20.0, -20.0, -20.0, -2.0, -2.0])
        self.upper = np.array([20.0, 100.0, 100.0, 6.0, 6.0])

    def starts(self) -> Array:
        """The 4,500 starts of the recipe."""
        scales, exponents = np.arange(0, 26, 5.0), np.arange(0, 2.1, 0.5)
        return grid(np.arange(-1, 1.1, 0.5), scales, scales, exponents, exponents)

    def value(self, x: Array, theta: Array) -> Array:
        return self._terms(np.log(x), theta)[0]

    def value_and_jacobian(self, x: Array, theta: Array) -> tuple[Array, Array]:
        log_x = np.log(x)
        total, shares = self._terms(log_x, theta)
        jacobian = np.empty((len(theta), 5, x.shape[1]))
        jacobian[:, :3] = shares
        np.multiply(shares[:, 1:], -log_x, out=jacobian[:, 3:])
        return total, jacobian

    def curvature(self, x: Array, theta: Array, multipliers: Array) -> Array:
        log_x = np.log(x)
        shares = self._terms(log_x, theta)[1]
        # d(share_i)/d(exponent_j) = share_i (1[i = j] - share_j); alpha and beta enter as a and b times -log x.
        inner = np.empty((len(theta), 5, x.shape[1]))
        inner[:, :3] = shares
        np.multiply(shares[:, 1:], -log_x, out=inner[:, 3:])
        weighted = inner * multipliers[:, None]
        hessian = -(weighted @ inner.transpose(0, 2, 1))
        sums = weighted.sum(axis=-1)
        squares = np.einsum("svn,vn->sv", weighted[:, 3:], -log_x)
        for scale, exponent in ((1, 3), (2, 4)):
            hessian[:, scale, scale] += sums[:, scale]
            hessian[:, scale, exponent] += sums[:, exponent]
            hessian[:, exponent, scale] += sums[:, exponent]
            hessian[:, exponent, exponent] += squares[:, exponent - 3]
        hessian[:, 0, 0] += sums[:, 0]
        return hessian

    def to_params(self, theta: Array) -> Array:
        return np.concatenate([np.exp(theta[:, :3]), theta[:, 3:]], axis=1)

    def from_params(self, params: Array) -> Array:
        return np.concatenate([np.log(params[:, :3]), params[:, 3:]], axis=1)

    @staticmethod
    def _terms(log_x: Array, theta: Array) -> tuple[Array, Array]:
        """log L (`S x n`) and the share of every term in L (`S x 3 x n`)."""
        terms = np.empty((len(theta), 3, log_x.shape[-1]))
        terms[:, 0] = theta[:, 0, None]
        np.multiply(theta[:, 3:5, None], -log_x, out=terms[:, 1:])
        terms[:, 1:] += theta[:, 1:3, None]
        largest = terms.max(axis=1)
        terms -= largest[:, None]
        np.exp(terms, out=terms)
        total = terms.sum(axis=1)
        terms /= total[:, None]
        return largest + np.log(total), terms


class DataConstrained(Parametric):
    """The parametric law where data are repeated: `L = E + A / N'^alpha + B / D'^beta`.

    `D' = U + U R_D* (1 - exp(-R / R_D*))` with U unique samples and `R = D/U - 1` repeats; `N'` likewise from `U_N`,
    the compute-optimal N for U samples under the law's own constants (at most N), with `R_N*`. Muennighoff et al. 2023
    (arXiv 2305.16264), section 3 and equation 5; their constants 15.39 and 5.31 are held unless freed. Internal: `(e,
    a, b, alpha, beta, log R_D*, log R_N*)`.
    """

    name: ClassVar[str] = "data_constrained"
    title: ClassVar[str] = "data-constrained law"
    formula: ClassVar[str] = "L = E + A / N'^alpha + B / D'^beta, D' = U + U R_D* (1 - exp(-R/R_D*)), N' likewise"
    source: ClassVar[str] = "Muennighoff et al. 2023 (arXiv 2305.16264), section 3"
    variables: ClassVar[tuple[str, ...]] = ("N", "D", "U")
    held: ClassVar[Mapping[str, float]] = {"R_D*": 15.39, "R_N*": 5.31}

    parameters = (
        *Parametric.parameters,
        Parameter("R_D*", "repeats after which further ones are worth little", "repeats"),
        Parameter("R_N*", "excess parameters, in multiples of U_N, after which further ones are worth little", "1"),
    )

    def __init__(self, x: Array, y: Array) -> None:
        super().__init__(x, y)
        self.lower = np.array([*self.lower[:3], 1e-3, 1e-3, np.log(1e-2), np.log(1e-2)])
        self.upper = np.array([*self.upper, np.log(1e4), np.log(1e4)])

    def starts(self) -> Array:
        """The grid of the parametric law, with the published R_D* and R_N*."""
        base = super().starts()
        return np.column_stack([base, np.tile(np.log([15.39, 5.31]), (len(base), 1))])

    def value(self, x: Array, theta: Array) -> Array:
        return self._terms(self._effective(x, theta)[0], theta)[0]

    def value_and_jacobian(self, x: Array, theta: Array) -> tuple[Array, Array]:
        log_x, by_repeats, by_optimal, optimal = self._effective(x, theta)
        total, shares = self._terms(log_x, theta)
        alpha, beta = theta[:, 3, None], theta[:, 4, None]
        follow = -theta[:, 3:5, None] * shares[:, 1:]  # d log L / d log N' and d log D'
        through = follow[:, 0] * by_optimal  # ... / d log U_N
        jacobian = np.empty((len(theta), 7, x.shape[1]))
        jacobian[:, :3] = shares
        np.multiply(shares[:, 1:], -log_x, out=jacobian[:, 3:5])
        jacobian[:, 5], jacobian[:, 6] = follow[:, 1] * by_repeats[:, 1], follow[:, 0] * by_repeats[:, 0]
        jacobian[:, 1] += through / alpha
        jacobian[:, 2] -= through / alpha
        jacobian[:, 3] += through * (1 / alpha - optimal) / alpha
        jacobian[:, 4] += through * (np.log(np.minimum(x[2], x[1])) - 1 / beta) / alpha
        return total, jacobian

    def curvature(self, x: Array, theta: Array, multipliers: Array) -> Array:
        return Form.curvature(self, x, theta, multipliers)

    def to_params(self, theta: Array) -> Array:
        return np.concatenate([super().to_params(theta[:, :5]), np.exp(theta[:, 5:])], axis=1)

    def from_params(self, params: Array) -> Array:
        return np.concatenate([super().from_params(params[:, :5]), np.log(params[:, 5:])], axis=1)

    @staticmethod
    def _effective(x: Array, theta: Array) -> tuple[Array, Array, Array, Array]:
        """log N' and log D' (`S x 2 x n`), their derivatives by log R_N*, log R_D*, log N's by log U_N, log U_N."""
        size, seen, unique = np.log(x[0]), np.log(x[1]), np.log(np.minimum(x[2], x[1]))
        a, b, alpha, beta = (theta[:, i, None] for i in range(1, 5))
        optimal = (np.log(alpha / beta) + a - b + beta * unique) / alpha
        base = np.stack([np.minimum(optimal, size), np.broadcast_to(unique, optimal.shape)], axis=1)
        # Far from the data U_N may be anything: a larger excess than e^700 is worth the same.
        excess = np.exp(np.minimum(np.stack([size, seen])[None] - base, 700.0))
        limit = np.exp(theta[:, [6, 5], None])
        passed = (excess - 1) / limit
        fading = np.exp(-passed)
        worth = 1 + limit * (1 - fading)
        by_limit = limit * (1 - fading - passed * fading) / worth
        by_optimal = np.where(optimal < size, 1 - fading[:, 0] * excess[:, 0] / worth[:, 0], 0.0)
        return base + np.log(worth), by_limit, by_optimal, optimal
