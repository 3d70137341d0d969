"""Laws in one variable that fall as a power of it: M1, M2, M3, saturating compute, broken neural scaling law.

All but M1 and M3 are `floor + exp(g)`, with g linear or bent in log x. Internally x is divided by its geometric mean
`x_ref` and the floor by the smallest y, so that every internal parameter is of order 1.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from scaling_studies.forms import Form, grid, softplus
from scaling_studies.laws import Array, Parameter

_ALABDULMOHSIN = "Alabdulmohsin et al. 2022 (arXiv 2209.06640)"
_SHARES_OF_LEAST = [0.0, 0.5, 0.95]
_FALLS = [-0.1, -0.3, -0.8, -2.0]


class CurveForm(Form):
    """A law in one variable on data: `x_ref`, the extremes of y, and a straight line through the data in log-log."""

    tied: ClassVar[tuple[str, str, int] | None] = ("b", "c", 1)

    def __init__(self, x: Array, y: Array) -> None:
        self.x_ref = float(np.exp(np.mean(np.log(np.unique(x)))))
        self.y_min, self.y_max = float(y.min()), float(y.max())
        self.u_min, self.u_max = (float(np.log(end / self.x_ref)) for end in (x.min(), x.max()))
        self.middle = float(np.log(self.y_min * self.y_max) / 2) if self.y_min > 0 else 0.0

    def u(self, x: Array) -> Array:
        """log of x over its middle, `n`."""
        return np.log(x[0] / self.x_ref)


class PowerForm(CurveForm):
    """`y = floor + exp(g)`; theta is `(floor / y_min, ...)` with a floor and `(...)`, the parameters of g, without."""

    has_floor: ClassVar[bool] = True

    @abstractmethod
    def exponent(self, x: Array, theta: Array) -> tuple[Array, Array]:
        """g, `S x n`, and its derivatives by its own parameters, `S x (P - has_floor) x n`."""

    def value(self, x: Array, theta: Array) -> Array:
        g, _ = self.exponent(x, theta[:, int(self.has_floor) :])
        return np.log(theta[:, :1] * self.y_min + np.exp(g)) if self.has_floor else g

    def value_and_jacobian(self, x: Array, theta: Array) -> tuple[Array, Array]:
        g, slopes = self.exponent(x, theta[:, int(self.has_floor) :])
        if not self.has_floor:
            return g, slopes
        falling = np.exp(g)
        total = theta[:, :1] * self.y_min + falling
        jacobian = np.concatenate([(self.y_min / total)[:, None], slopes * (falling / total)[:, None]], axis=1)
        return np.log(total), jacobian

    def with_floor(self, theta_of_g: Array) -> Array:
        """Starts for every floor: the level of g is the part of the middle of the data above the floor."""
        stacks = []
        for share in _SHARES_OF_LEAST:
            floored = theta_of_g.copy()
            floored[:, 0] = np.log(np.exp(self.middle) - 0.99 * share * self.y_min)
            stacks.append(np.column_stack([np.full(len(floored), share), floored]))
        return np.concatenate(stacks)

    def set_bounds(self, *bounds: tuple[float, float]) -> None:
        """Bounds of g's parameters after its level; a floor is between 0 and the largest y."""
        level = (self.middle - 60.0, self.middle + 60.0)
        floor = [(0.0, self.y_max / self.y_min)] if self.has_floor else []
        self.lower, self.upper = np.array([*floor, level, *bounds]).T


class M1(PowerForm):
    """`y = b x^c`: a line in log-log."""

    name = "m1"
    title = "power law"
    formula = "y = b * x^c"
    source = f"M1 of {_ALABDULMOHSIN}; Kaplan et al. 2020 (arXiv 2001.08361)"
    has_floor = False
    parameters: tuple[Parameter, ...] = (Parameter("b", "error at x = 1", "error"), Parameter("c", "exponent", "1"))

    def __init__(self, x: Array, y: Array) -> None:
        super().__init__(x, y)
        self.set_bounds((-10.0, 10.0))

    def starts(self) -> Array:
        return grid([self.middle], _FALLS)

    def exponent(self, x: Array, theta: Array) -> tuple[Array, Array]:
        u = self.u(x)
        slopes = np.broadcast_to(np.stack([np.ones_like(u), u]), (len(theta), 2, len(u)))
        return theta[:, :1] + theta[:, 1:2] * u, slopes

    def to_params(self, theta: Array) -> Array:
        return np.stack([np.exp(theta[:, 0] - theta[:, 1] * np.log(self.x_ref)), theta[:, 1]], axis=1)

    def from_params(self, params: Array) -> Array:
        return np.stack([np.log(params[:, 0]) + params[:, 1] * np.log(self.x_ref), params[:, 1]], axis=1)


class M2(M1):
    """`y - y_inf = b x^c`: falls towards a floor.

    The level is read at the smallest x: in the middle it would run off to 0 where one small x stands far above a
    plateau, and a fit would not converge.
    """

    name = "m2"
    title = "saturating power law"
    formula = "y = y_inf + b * x^c"
    source = f"M2 of {_ALABDULMOHSIN}; Hestness et al. 2017 (arXiv 1712.00409)"
    has_floor = True
    parameters = (
        Parameter("y_inf", "error that no amount of x removes", "error"),
        Parameter("b", "error above y_inf at x = 1", "error"),
        Parameter("c", "exponent", "1"),
    )

    def __init__(self, x: Array, y: Array) -> None:
        super().__init__(x, y)
        self.x_ref, self.middle = float(x.min()), float(np.log(self.y_max))
        self.set_bounds((-10.0, -1e-3))

    def starts(self) -> Array:
        return self.with_floor(super().starts())

    def to_params(self, theta: Array) -> Array:
        return np.column_stack([theta[:, 0] * self.y_min, super().to_params(theta[:, 1:])])

    def from_params(self, params: Array) -> Array:
        return np.column_stack([params[:, 0] / self.y_min, super().from_params(params[:, 1:])])


class M3(PowerForm):
    """`y = b (1/x + g)^-c`: levels off where 1/x falls below g. Internal: level, c, log(g * x_ref)."""

    name = "m3"
    title = "shifted power law"
    formula = "y = b * (1/x + g)^-c"
    source = f"M3 of {_ALABDULMOHSIN}"
    has_floor = False
    parameters = (
        Parameter("b", "scale", "error * x^-c"),
        Parameter("c", "exponent", "1"),
        Parameter("g", "1/x at which the fall ends", "1/x"),
    )

    def __init__(self, x: Array, y: Array) -> None:
        super().__init__(x, y)
        self.set_bounds((-10.0, 0.0), (-self.u_max - 15.0, -self.u_min + 3.0))

    def starts(self) -> Array:
        return grid([self.middle], _FALLS, [-self.u_max - 5.0, -self.u_max, 0.0, -self.u_min])

    def exponent(self, x: Array, theta: Array) -> tuple[Array, Array]:
        shift = np.exp(theta[:, 2:3])
        inner = np.exp(-self.u(x)) + shift
        log_inner, c = np.log(inner), theta[:, 1:2]
        slopes = np.stack([np.ones_like(inner), -log_inner, -c * shift / inner], axis=1)
        return theta[:, :1] - c * log_inner, slopes

    def to_params(self, theta: Array) -> Array:
        c = theta[:, 1]
        return np.stack([np.exp(theta[:, 0] - c * np.log(self.x_ref)), c, np.exp(theta[:, 2]) / self.x_ref], axis=1)

    def from_params(self, params: Array) -> Array:
        b, c, g = params.T
        return np.stack([np.log(b) + c * np.log(self.x_ref), c, np.log(g * self.x_ref)], axis=1)


class SaturatingCompute(PowerForm):
    """`E = a (C + d)^-b + c`: levels off at both ends. Internal: c / y_min, level, b, log(d / x_ref)."""

    name = "zhai"
    title = "saturating compute law"
    formula = "E = a * (C + d)^-b + c"
    source = "Zhai et al. 2021 (arXiv 2106.04560), section 3.2"
    tied = ("a", "b", -1)
    parameters = (
        Parameter("c", "error that no compute removes", "error"),
        Parameter("a", "error above c at C + d = 1", "error"),
        Parameter("b", "exponent of the fall", "1"),
        Parameter("d", "compute below which the error hardly falls", "C"),
    )

    def __init__(self, x: Array, y: Array) -> None:
        super().__init__(x, y)
        self.set_bounds((1e-3, 10.0), (self.u_min - 15.0, self.u_max + 3.0))

    def starts(self) -> Array:
        falls = [-fall for fall in _FALLS]
        return self.with_floor(grid([self.middle], falls, [self.u_min - 5.0, self.u_min, 0.0, self.u_max]))

    def exponent(self, x: Array, theta: Array) -> tuple[Array, Array]:
        shift = np.exp(theta[:, 2:3])
        inner = np.exp(self.u(x)) + shift
        log_inner, b = np.log(inner), theta[:, 1:2]
        slopes = np.stack([np.ones_like(inner), -log_inner, -b * shift / inner], axis=1)
        return theta[:, :1] - b * log_inner, slopes

    def to_params(self, theta: Array) -> Array:
        floor, level, b, log_shift = theta.T
        scale = np.exp(level + b * np.log(self.x_ref))
        return np.stack([floor * self.y_min, scale, b, np.exp(log_shift) * self.x_ref], axis=1)

    def from_params(self, params: Array) -> Array:
        c, a, b, d = params.T
        return np.stack([c / self.y_min, np.log(a) - b * np.log(self.x_ref), b, np.log(d / self.x_ref)], axis=1)


class Broken(PowerForm):
    """`y = a + b x^-c0 * prod_i (1 + (x/d_i)^(1/f_i))^(-c_i f_i)`: the exponent changes by c_i at every break d_i.

    Internal: a / y_min, level, c0, then per break c_i, log(d_i / x_ref), log f_i. Breaks are kept in rising order.
    """

    name = "bnsl"
    title = "broken neural scaling law"
    formula = "y = a + b * x^-c0 * prod_i (1 + (x/d_i)^(1/f_i))^(-c_i * f_i)"
    source = "Caballero et al. 2022 (arXiv 2210.14891), equation 1"
    tied = ("b", "c0", -1)

    def __init__(self, x: Array, y: Array, *, num_breaks: int = 1) -> None:
        super().__init__(x, y)
        if num_breaks < 0:
            raise ValueError(f"num_breaks is {num_breaks}: expected a whole number of 0 or more")
        self.num_breaks = num_breaks
        per_break = [
            (
                Parameter(f"c{i}", f"change of the exponent at break {i}", "1"),
                Parameter(f"d{i}", f"x of break {i}", "x"),
                Parameter(f"f{i}", f"width of break {i}: 0 is sharp", "1"),
            )
            for i in range(1, num_breaks + 1)
        ]
        self.parameters = (
            Parameter("a", "error that no amount of x removes", "error"),
            Parameter("b", "scale", "error * x^c0"),
            Parameter("c0", "exponent before the first break", "1"),
            *(parameter for triple in per_break for parameter in triple),
        )
        one_break = ((-10.0, 10.0), (self.u_min - 1.0, self.u_max + 1.0), (np.log(0.01), np.log(5.0)))
        self.set_bounds((-5.0, 10.0), *(one_break * num_breaks))

    def starts(self) -> Array:
        places = np.linspace(self.u_min, self.u_max, self.num_breaks + 2)[1:-1]
        shifts = [0.0] if not self.num_breaks else [-0.25, 0.0, 0.25]
        rows = []
        for shift, change, width in grid(shifts, [-0.3, 0.3, 1.0], [np.log(0.1), np.log(0.6)]):
            spacing = (self.u_max - self.u_min) / (self.num_breaks + 1)
            breaks = [cell for place in places for cell in (change, place + shift * spacing, width)]
            rows += [[self.middle, c0, *breaks] for c0 in (0.0, 0.2, 0.6)]
        return self.with_floor(np.array(rows))

    def exponent(self, x: Array, theta: Array) -> tuple[Array, Array]:
        u = self.u(x)
        g = theta[:, :1] - theta[:, 1:2] * u
        slopes = [np.ones_like(g), np.broadcast_to(-u, g.shape)]
        for i in range(self.num_breaks):
            change, place, log_width = (theta[:, 2 + 3 * i + j, None] for j in range(3))
            width = np.exp(log_width)
            z = (u - place) / width
            bend, share = softplus(z), 1 / (1 + np.exp(-np.clip(z, -500, 500)))
            g = g - change * width * bend
            slopes += [-width * bend, change * share, -change * width * (bend - z * share)]
        return g, np.stack(slopes, axis=1)

    def to_params(self, theta: Array) -> Array:
        params = theta.copy()
        params[:, 0] *= self.y_min
        params[:, 1] = np.exp(theta[:, 1] + theta[:, 2] * np.log(self.x_ref))
        params[:, 4::3] = np.exp(theta[:, 4::3]) * self.x_ref
        params[:, 5::3] = np.exp(theta[:, 5::3])
        order = np.argsort(params[:, 4::3], axis=1)
        breaks = params[:, 3:].reshape(len(theta), self.num_breaks, 3)
        params[:, 3:] = np.take_along_axis(breaks, order[:, :, None], axis=1).reshape(len(theta), -1)
        return params

    def from_params(self, params: Array) -> Array:
        theta = params.copy()
        theta[:, 0] /= self.y_min
        theta[:, 1] = np.log(params[:, 1]) - params[:, 2] * np.log(self.x_ref)
        theta[:, 4::3] = np.log(params[:, 4::3] / self.x_ref)
        theta[:, 5::3] = np.log(params[:, 5::3])
        return theta
