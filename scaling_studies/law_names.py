"""The laws by the names that `fit_law` and the command line take."""

from __future__ import annotations

from scaling_studies.forms import Form
from scaling_studies.laws import Array
from scaling_studies.loss_laws import DataConstrained, Parametric
from scaling_studies.power_laws import M1, M2, M3, Broken, SaturatingCompute
from scaling_studies.sigmoid_laws import M4, ChanceToCeiling

LAWS: dict[str, type[Form]] = {
    law.name: law for law in (M1, M2, M3, M4, SaturatingCompute, Broken, ChanceToCeiling, Parametric, DataConstrained)
}


def law_class(name: str) -> type[Form]:
    """The law called `name`. Raises `ValueError` with the names that there are."""
    if name not in LAWS:
        raise ValueError(f"law {name!r} is none of {', '.join(LAWS)}")
    return LAWS[name]


def law_for_data(name: str, x: Array, y: Array, *, num_breaks: int | None = None) -> Form:
    """The law on data: `x` of shape `V x n`, `y` of shape `n`."""
    if name == Broken.name:
        return Broken(x, y, num_breaks=1 if num_breaks is None else num_breaks)
    if num_breaks is not None:
        raise ValueError(f"num_breaks is for law 'bnsl', got law {name!r}")
    return law_class(name)(x, y)  # type: ignore[call-arg]


def variable_names(name: str) -> tuple[str, ...]:
    """What the law calls its variables: `("x",)`, `("N", "D")` or `("N", "D", "U")`."""
    return law_class(name).variables
