"""How far a place lies beyond the measured rows, and how far beyond them a law has been tested.

A place is beyond the data where one of its variables is, or a product or quotient of two of them: rows of small N with
large D and of large N with small D say nothing about large N with large D. In log x these are the sides of an octagon
around the rows; around a full grid it is the grid's own box.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from scaling_studies.laws import Array

# A law whose test missed by more than this root mean square of the log error (5%) is not validated by it. Over a factor
# of 2 in x an error with the exponent -0.3 falls by 0.2: more than a quarter of that is no prediction.
LARGEST_LOG_ERROR = 0.05
ROUNDING = 1e-9


@dataclass(frozen=True)
class ScoredReach:
    """What an extrapolation test has scored: `variable` upward to `reach` times the fitted data, with log error `rmse`.

    It validates only that variable, only upward, and nothing where `rmse` is above `LARGEST_LOG_ERROR`.
    """

    variable: str
    reach: float
    rmse: float

    @property
    def validated(self) -> float:
        """The factor beyond the data that may be claimed; 1 where the test missed."""
        return self.reach if self.rmse <= LARGEST_LOG_ERROR else 1.0


def overreach(names: tuple[str, ...], measured: Array, x: Array) -> tuple[Array, str]:
    """Per column of `x` (`V x m`) the factor by which it lies beyond the rows `measured` (`V x n`), 1 inside (`m`).

    The text names what the farthest of them exceeds: a variable, or the product or quotient of two.
    """
    log_measured, log_x = np.log(measured), np.log(x)
    sides = list(_sides(names))
    logs = np.stack([side @ log_x - np.max(side @ log_measured) for _, side in sides])
    farthest = int(np.argmax(logs.max(axis=1)))
    return np.exp(np.maximum(logs.max(axis=0), 0.0)), sides[farthest][0]


def beyond_sentence(names: tuple[str, ...], measured: Array, x: Array, tested: ScoredReach | None) -> str | None:
    """A warning when a column of `x` lies beyond the rows and beyond what was validated, else `None`."""
    factors, name = overreach(names, measured, x)
    if factors.max() <= 1 + ROUNDING or (
        tested is not None and overreach(names, _widened(names, measured, tested), x)[0].max() <= 1 + ROUNDING
    ):
        return None
    return f"{name} goes {factors.max():.3g} times beyond the data: {_held(name, tested)}"


def _sides(names: tuple[str, ...]) -> Iterator[tuple[str, Array]]:
    """Directions in log x with their names: every variable, then every product and quotient, each both ways."""
    unit = np.eye(len(names))
    named = [(name, unit[i]) for i, name in enumerate(names)]
    for i, j in combinations(range(len(names)), 2):
        named += [(f"{names[i]} x {names[j]}", unit[i] + unit[j]), (f"{names[i]} / {names[j]}", unit[i] - unit[j])]
    for name, side in named:
        yield name, side
        yield name, -side


def _widened(names: tuple[str, ...], measured: Array, tested: ScoredReach) -> Array:
    """The rows, and the same with the tested variable enlarged by what was validated."""
    moved = measured.copy()
    moved[names.index(tested.variable)] *= tested.validated
    return np.concatenate([measured, moved], axis=1)


def _held(name: str, tested: ScoredReach | None) -> str:
    if tested is None:
        return "no extrapolation was validated"
    score = f"log error {tested.rmse:.2g}"
    if tested.validated == 1:
        return f"no extrapolation was validated, a test over a factor of {tested.reach:.3g} missed ({score})"
    along = "" if name == tested.variable else f" in {tested.variable}"
    return f"a factor of {tested.reach:.3g}{along} was validated ({score})"
