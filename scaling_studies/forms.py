"""What every law is to the fit: a form with internal parameters that are well conditioned, and the formula's own.

The optimiser works on stacks of internal parameter vectors, so that many starts and bootstrap samples are fitted at
once: `theta` has shape `S x P`, values `S x n`, Jacobians `S x P x n`. The value is log y, or y itself where `link`
says so (accuracies). A form is made for data: internal parameters are centred on them, so that a scale is read in the
middle of the data and not at x = 1, where it would be tied to the exponent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import ClassVar

import numpy as np

from scaling_studies.laws import Array, Parameter

# Of the one-sided differences for curvatures: an error of its size slows Newton's method by nothing that counts.
_STEP = 1e-6


class Form(ABC):
    """A law on given data: `x` has shape `V x n` (positive), `y` shape `n`."""

    name: ClassVar[str]
    title: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]
    variables: ClassVar[tuple[str, ...]] = ("x",)
    # A scale at x = 1, the exponent that it hangs on and a sign: internally it is `log(scale) + sign * exponent *
    # log(x_ref)`, the level in the middle of the data. All other internal parameters hang on one of the formula's each.
    tied: ClassVar[tuple[str, str, int] | None] = None
    x_ref: float = 1.0
    link: ClassVar[str] = "log"
    # Holds for errors and losses, which fall with x; accuracies rise.
    falls: ClassVar[bool] = True
    # The Huber threshold that the law is published with; inf is least squares.
    huber_delta: ClassVar[float] = np.inf
    # Parameters that the law holds at published values unless told otherwise, by name.
    held: ClassVar[Mapping[str, float]] = {}

    parameters: tuple[Parameter, ...]
    lower: Array
    upper: Array

    @abstractmethod
    def starts(self) -> Array:
        """Starting points, `K x P` internal."""

    @abstractmethod
    def value(self, x: Array, theta: Array) -> Array:
        """log y (or y), `S x n`, at `x` (`V x n`)."""

    @abstractmethod
    def value_and_jacobian(self, x: Array, theta: Array) -> tuple[Array, Array]:
        """`value` and its derivatives by theta, `S x P x n`."""

    @abstractmethod
    def to_params(self, theta: Array) -> Array:
        """The formula's own parameters, `S x P`, in the order of `parameters`."""

    @abstractmethod
    def from_params(self, params: Array) -> Array:
        """Internal parameters, `S x P`, from the formula's own."""

    def curvature(self, x: Array, theta: Array, multipliers: Array) -> Array:
        """`sum_i m_i * (second derivatives of value_i)`, `S x P x P`, for multipliers m `S x n`; by differences."""
        num_params = theta.shape[1]
        rows = np.empty((len(theta), num_params, num_params))
        here = self.value_and_jacobian(x, theta)[1]
        for index in range(num_params):
            moved = theta.copy()
            moved[:, index] += _STEP
            change = self.value_and_jacobian(x, moved)[1] - here
            rows[:, index] = (change @ multipliers[:, :, None])[..., 0] / _STEP
        return (rows + rows.transpose(0, 2, 1)) / 2

    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    def predict(self, x: Array, theta: Array) -> Array:
        """y, `S x n`."""
        value = self.value(x, theta)
        return np.exp(value) if self.link == "log" else value

    def linked(self, y: Array) -> Array:
        """y on the scale of `value`."""
        return np.log(y) if self.link == "log" else y


@cache
def on_linear_scale(law: type[Form]) -> type[Form]:
    """The law with residuals of y itself instead of its logarithm: an error of 0 can stand there."""

    class Linear(law):  # type: ignore[misc, valid-type]
        link = "identity"

        def value(self, x: Array, theta: Array) -> Array:
            return np.exp(super().value(x, theta))

        def value_and_jacobian(self, x: Array, theta: Array) -> tuple[Array, Array]:
            value, jacobian = super().value_and_jacobian(x, theta)
            y = np.exp(value)
            return y, jacobian * y[:, None]

        def curvature(self, x: Array, theta: Array, multipliers: Array) -> Array:
            return Form.curvature(self, x, theta, multipliers)

    return Linear


def softplus(z: Array) -> Array:
    """`log(1 + exp(z))` without overflow."""
    return np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))


def grid(*axes: Array | list[float]) -> Array:
    """Every combination of the axes' values, one per row."""
    return np.stack([values.ravel() for values in np.meshgrid(*axes, indexing="ij")], axis=-1)
