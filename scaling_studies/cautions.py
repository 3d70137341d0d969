"""What a reader of a fit's intervals must know, in sentences: few points, dependent rows, lost samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scaling_studies.law_fit import LawFit

# A Birge ratio below this is as well explained by chance, and from more degrees of freedom than these it is well known.
_NOTICEABLE_SCATTER = 1.5
_MANY_DEGREES_OF_FREEDOM = 10
# From fewer degrees of freedom an interval is wide because the noise is hardly known, not because it is large.
_ENOUGH_DEGREES_OF_FREEDOM = 5
# Fewer runs than this, resampled whole, show too little of how runs differ.
ENOUGH_RUNS = 6
# Bootstrap samples that may fail to converge without a word.
_LOST_SAMPLES = 0.02


def cautions(fit: LawFit, method: str | None) -> list[str]:
    """Sentences about the intervals of `fit` by `method` (by default its own)."""
    found = (_scatter(fit), _few_points(fit, method), _dependent_rows(fit, method), _lost_samples(fit, method))
    return [text for text in found if text is not None]


def _scatter(fit: LawFit) -> str | None:
    """Extra scatter is itself poorly known from a few points, which intervals only allow for by a prior."""
    if not fit.birge_ratio >= _NOTICEABLE_SCATTER or fit.degrees_of_freedom > _MANY_DEGREES_OF_FREEDOM:
        return None
    return (
        f"the points scatter {fit.birge_ratio:.2g} times as much as their standard errors, judged from "
        f"{_degrees(fit)} of freedom: how wide the intervals should be is known roughly, more seeds would tell"
    )


def _few_points(fit: LawFit, method: str | None) -> str | None:
    """Without standard errors the noise is known from the residuals alone.

    Simulated with 2% of noise, the 95% band of m1 with 1 degree of freedom covers the truth in 95% or more of cases,
    that of m2, which is no line in its parameters, in about 90%.
    """
    method = method or fit.default_method
    if fit.data.sigma is not None or method == "runs":
        return None
    if method == "cases" and fit.degrees_of_freedom <= _MANY_DEGREES_OF_FREEDOM:
        return f"cases are drawn from {_degrees(fit)} of freedom only: the intervals may be too narrow"
    if fit.degrees_of_freedom < _ENOUGH_DEGREES_OF_FREEDOM:
        return (
            f"the noise is judged from {_degrees(fit)} of freedom: the intervals are wide for that, and hold only if "
            "the law is the true one and the noise normal"
        )
    return None


def _dependent_rows(fit: LawFit, method: str | None) -> str | None:
    """Rows of one run share what that run was lucky or unlucky in."""
    num_runs = len(np.unique(fit.data.runs))
    if num_runs == len(fit.data.runs):
        return None
    method = method or fit.default_method
    if method != "runs":
        return (
            f"the {len(fit.data.runs)} rows come from {num_runs} run{'s' if num_runs > 1 else ''} and are taken as "
            f"independent by {method!r}: the intervals are too narrow"
        )
    if num_runs < ENOUGH_RUNS:
        return f"the intervals are resampled from {num_runs} runs only: they may be too narrow"
    return None


def _lost_samples(fit: LawFit, method: str | None) -> str | None:
    samples = fit.interval_samples(method)
    if samples is None:
        return None
    lost = samples.num_drawn - len(samples.theta)
    if lost <= _LOST_SAMPLES * samples.num_drawn:
        return None
    return f"{lost:,} of {samples.num_drawn:,} bootstrap samples did not converge and are left out of the intervals"


def _degrees(fit: LawFit) -> str:
    free = fit.degrees_of_freedom
    return "1 degree" if free == 1 else f"{free} degrees"
