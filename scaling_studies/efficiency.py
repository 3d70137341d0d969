"""Efficiency of one method over another, read off two fitted curves: how many times less of x the same quality takes.

*Sample efficiency* of method 1 over method 2 at quality `q` is `D_2(q) / D_1(q)` in unique images, *parameter
efficiency* `N_2(q) / N_1(q)` in encoder parameters. The rule for `q`: an error that both fitted curves pass inside the
range of x that was measured for each. Two such errors are reported: the lowest that both reach, and the middle of those
that both pass. Nothing is read beyond the data.

At the lowest common error one method stands at the very end of its data, so that about half of its bootstrap curves do
not reach it. A pair of curves of which one does not reach `q` still says something: that its x is more than the largest
(or less than the smallest) measured. Such a pair enters as the whole range of ratios that this allows, and where these
ranges decide an end of the interval that end is open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling_studies.fitting import CONFIDENCE, Fit
from scaling_studies.laws import Array


@dataclass(frozen=True)
class Efficiency:
    """Ratio `x_2(q) / x_1(q)` at the error `quality`; above 1, method 1 needs less.

    `low` and `high` end its 95% interval; `low` is 0 and `high` is inf where that end is open. `x_1` and `x_2` are what
    each method needs. `outside_1` and `outside_2` are the fractions of bootstrap curves that do not pass `quality`
    inside the data.
    """

    quality: float
    ratio: float
    low: float
    high: float
    x_1: float
    x_2: float
    outside_1: float
    outside_2: float


def common_errors(fit_1: Fit, fit_2: Fit) -> tuple[float, float] | None:
    """Lowest and highest error that both fitted curves pass inside their measured ranges; `None` when there is none."""
    (best_1, worst_1), (best_2, worst_2) = error_range(fit_1), error_range(fit_2)
    lowest, highest = max(best_1, best_2), min(worst_1, worst_2)
    return (lowest, highest) if highest - lowest > 1e-9 else None


def error_range(fit: Fit) -> tuple[float, float]:
    """Lowest and highest error of the fitted curve between the smallest and the largest measured x."""
    worst, best = fit.predict(np.array(fit.x_range))
    return float(best), float(worst)


def efficiency(fit_1: Fit, fit_2: Fit, *, at: float) -> Efficiency:
    """Efficiency of method 1 over method 2 at the error `at`.

    Raises `ValueError` when a fitted curve does not pass that error inside its measured range. The fits must have been
    bootstrapped with different seeds: their samples are taken as independent.
    """
    for fit in (fit_1, fit_2):
        best, worst = error_range(fit)
        # The relative slack lets `at` be an end of the range in spite of rounding.
        if not best * (1 - 1e-9) <= at <= worst * (1 + 1e-9):
            raise ValueError(f"not reached within the data: error {at:.4g}, the curve spans {best:.4g} to {worst:.4g}")
    x_1, x_2 = (float(np.clip(fit.law.inverse(at, fit.params), *fit.x_range)) for fit in (fit_1, fit_2))
    tail = 50 * (1 - CONFIDENCE)
    (least_1, most_1), (least_2, most_2) = _limits(fit_1, at), _limits(fit_2, at)
    with np.errstate(divide="ignore"):
        # Order statistics: an infinite ratio must make the end infinite, where interpolation would give NaN.
        low = np.percentile(least_2 / most_1, tail, method="lower")
        high = np.percentile(most_2 / least_1, 100 - tail, method="higher")
    return Efficiency(
        quality=at,
        ratio=x_2 / x_1,
        low=float(low),
        high=float(high),
        x_1=x_1,
        x_2=x_2,
        outside_1=float(np.mean(least_1 != most_1)),
        outside_2=float(np.mean(least_2 != most_2)),
    )


def _limits(fit: Fit, at: float) -> tuple[Array, Array]:
    """Per bootstrap curve the least and the most x that `at` may take: equal where it is read off inside the data."""
    smallest, largest = fit.x_range
    x = fit.law.inverse(at, fit.samples)
    least = np.where(x < smallest, 0.0, np.where(x > largest, largest, x))
    most = np.where(x < smallest, smallest, np.where(x > largest, np.inf, x))
    return least, most
