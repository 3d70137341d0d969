"""The laws by the names that `fit_law` and the command line take."""

from __future__ import annotations

import numpy as np

from scaling_studies.forms import Form, on_linear_scale
from scaling_studies.laws import Array
from scaling_studies.loss_laws import DataConstrained, Parametric
from scaling_studies.power_laws import M1, M2, M3, Broken, SaturatingCompute
from scaling_studies.sigmoid_laws import M4, ChanceToCeiling

LAWS: dict[str, type[Form]] = {
    law.name: law for law in (M1, M2, M3, M4, SaturatingCompute, Broken, ChanceToCeiling, Parametric, DataConstrained)
}


def law_class(name: str, scale: str | None = None) -> type[Form]:
    """The law called `name` on a scale of y: `log`, `linear`, or `None` for its own.

    Raises `ValueError` with the names that there are.
    """
    if name not in LAWS:
        raise ValueError(f"law {name!r} is none of {', '.join(LAWS)}")
    law = LAWS[name]
    if scale not in (None, "log", "linear"):
        raise ValueError(f"scale {scale!r} is none of log, linear")
    if scale == "log" and law.link != "log":
        raise ValueError(f"law {name!r} is fitted on the linear scale only, got scale 'log'")
    return on_linear_scale(law) if scale == "linear" and law.link == "log" else law


def law_for_data(name: str, x: Array, y: Array, *, num_breaks: int | None = None, scale: str | None = None) -> Form:
    """The law on data: `x` of shape `V x n`, `y` of shape `n`."""
    law = law_class(name, scale)
    if law.falls and y.min() <= 0 < y.max():
        y = np.maximum(y, y[y > 0].min())  # laws take their units from the data, and 0 is none
    if name == Broken.name:
        return law(x, y, num_breaks=1 if num_breaks is None else num_breaks)  # type: ignore[call-arg]
    if num_breaks is not None:
        raise ValueError(f"num_breaks is for law 'bnsl', got law {name!r}")
    return law(x, y)  # type: ignore[call-arg]


def num_parameters(name: str) -> int:
    """How many parameters the law has, those held by default included."""
    num_variables = len(law_class(name).variables)
    return len(law_for_data(name, np.full((num_variables, 2), [1.0, 2.0]), np.array([0.5, 0.4])).parameters)
