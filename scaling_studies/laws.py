"""Scaling laws: each a small class with its formula, parameters, bounds, gradient and source.

A law works on stacks of parameter vectors, so that many starts and bootstrap samples are fitted at once: `params` has
shape `... x P`, `x` has shape `n`, predictions `... x n`, gradients `... x n x P`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """A law's parameter: its name in the formula, what it says, and its unit."""

    name: str
    meaning: str
    unit: str


class Law(Protocol):
    """What fitting, figures and efficiency ask of a law in one variable."""

    name: ClassVar[str]
    title: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]]

    @classmethod
    def for_data(cls, x: Array) -> Law: ...
    def constants(self) -> dict[str, float]: ...
    def bounds(self, y: Array) -> tuple[Array, Array]: ...
    def starts(self, x: Array, y: Array) -> Array: ...
    def predict(self, x: Array, params: Array) -> Array: ...
    def gradient(self, x: Array, params: Array) -> Array: ...
    def inverse(self, y: float, params: Array) -> Array: ...


@dataclass(frozen=True)
class SaturatingPowerLaw:
    """M2: an error that falls as a power of x towards a floor, `y = y_inf + b * (x / x_ref)^-alpha`.

    Hestness et al., arXiv 1712.00409; named M2 in Alabdulmohsin et al., arXiv 2209.06640 (as `y - y_inf = b x^c`,
    `c = -alpha`). With `x_ref` the smallest x of the data, `b` is what the data's whole range may take off the
    error. It stays of the size of the data however steep the fall is; the scale at x = 1, or in the middle of the data,
    would run off to 0 where one small x stands far above a plateau, and a fit would not converge.
    """

    x_ref: float

    name: ClassVar[str] = "m2"
    title: ClassVar[str] = "saturating power law"
    formula: ClassVar[str] = "y = y_inf + b * (x / x_ref)^-alpha"
    source: ClassVar[str] = (
        "Hestness et al. 2017 (arXiv 1712.00409); M2 of Alabdulmohsin et al. 2022 (arXiv 2209.06640)"
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("y_inf", "error that no amount of x removes", "error"),
        Parameter("b", "error above y_inf at x = x_ref, the smallest x", "error"),
        Parameter("alpha", "exponent of the fall", "1"),
    )

    @classmethod
    def for_data(cls, x: Array) -> SaturatingPowerLaw:
        return cls(x_ref=float(np.min(x)))

    def constants(self) -> dict[str, float]:
        return {"x_ref": self.x_ref}

    def bounds(self, y: Array) -> tuple[Array, Array]:
        """Lower and upper bounds (`P`): a floor between 0 and the largest y, a fall and not a rise."""
        largest = float(np.max(y))
        return np.array([0.0, 0.0, 0.01]), np.array([largest, 2 * largest, 5.0])

    def starts(self, x: Array, y: Array) -> Array:
        """Starting points (`num_starts x P`): floors from none to nearly the smallest y, slow to steep falls."""
        floors = np.min(y) * np.array([0.0, 0.5, 0.95])
        alphas = np.array([0.05, 0.2, 0.5, 1.0, 2.5])
        floor, alpha = (grid.ravel() for grid in np.meshgrid(floors, alphas))
        return np.stack([floor, np.mean(y) - floor, alpha], axis=-1)

    def predict(self, x: Array, params: Array) -> Array:
        y_inf, b, alpha = (params[..., i, None] for i in range(3))
        return y_inf + b * np.exp(-alpha * np.log(x / self.x_ref))

    def gradient(self, x: Array, params: Array) -> Array:
        _, b, alpha = (params[..., i, None] for i in range(3))
        log_x = np.log(x / self.x_ref)
        power = np.exp(-alpha * log_x)
        return np.stack([np.ones_like(power), power, -b * log_x * power], axis=-1)

    def inverse(self, y: float, params: Array) -> Array:
        """The x at which the law is `y` (shape `...`): inf where it never falls so low, 0 where it always is lower."""
        y_inf, b, alpha = (params[..., i] for i in range(3))
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            ratio = np.log(np.maximum(y - y_inf, 0.0)) - np.log(b)
            return np.where(y <= y_inf, np.inf, self.x_ref * np.exp(-ratio / alpha))
