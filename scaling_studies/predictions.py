"""What a fitted law says about runs not yet made: their quality, what a quality takes, how a budget is best spent.

Every answer has an interval from the fit's bootstrap and says by which factor it goes beyond the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scaling_studies.compute import FLOPS_PER_PARAM_SAMPLE, frontier, optimal_allocation
from scaling_studies.law_fit import LawFit
from scaling_studies.laws import Array
from scaling_studies.slices import COMPUTE, Slice


@dataclass(frozen=True)
class Prediction:
    """`value` with its interval; `low` is 0 and `high` is inf where that end is open, both NaN where there is none.

    `at` says where (or for which quality), `beyond` by which factor that lies beyond the data (1 inside), `warning`
    what whoever shows the number must show.
    """

    value: float
    low: float
    high: float
    at: dict[str, float]
    beyond: float
    warning: str | None


def predict_quality(
    fit: LawFit, at: Mapping[str, float], *, level: float = 0.95, method: str | None = None, validated: float = 1.0
) -> Prediction:
    """y at one point, a value per variable of the fit: `predict_quality(fit, {"params": 1e9, "samples_seen": 1e10})`.

    `validated` is the factor beyond the data that an extrapolation test has scored (see `trust`).
    """
    names = fit.data.x_names
    if set(at) != set(names):
        raise ValueError(f"law {fit.law!r} was fitted over {', '.join(names)}: got {', '.join(at) or 'nothing'}")
    x = [float(at[name]) for name in names]
    low, high = fit.band(*x, level=level, method=method)
    beyond = max(max(value / ends[1], ends[0] / value) for value, ends in zip(x, fit.x_range.values(), strict=True))
    warning = fit.extrapolation(*x, validated=validated)
    return Prediction(float(fit.predict(*x)), float(low), float(high), dict(at), max(1.0, beyond), warning)


def needed(
    fit: LawFit,
    quality: float,
    *,
    over: str | None = None,
    held: Mapping[str, float] | None = None,
    level: float = 0.95,
    method: str | None = None,
    extrapolate: bool = False,
    flops_per_param_sample: float = FLOPS_PER_PARAM_SAMPLE,
) -> Prediction:
    """How much of `over` the `quality` takes, with `held` values of the other variables; `over="compute"` is the least.

    Raises `ValueError` when that is not within the data, unless `extrapolate`.
    """
    names = fit.data.x_names
    if over is None and len(names) > 1:
        raise ValueError(f"law {fit.law!r} is over {', '.join(names)}: say over which, and hold the others")
    along = Slice(fit, over or names[0], held or {}, flops_per_param_sample, method)
    if not extrapolate and (said := along.held_beyond()) is not None:
        raise ValueError(f"not reached within the data: {said}")
    x = along.x_at(quality, extrapolate=extrapolate)
    least, most = along.limits(quality, extrapolate=extrapolate)
    tail = 50 * (1 - level)
    low = float(np.percentile(least, tail, method="lower"))
    high = float(np.percentile(most, 100 - tail, method="higher"))
    beyond = float(along.beyond(x)[0])
    warning = f"{beyond:.3g} times beyond the data" if beyond > 1 + 1e-9 else None
    return Prediction(x, low, high, {fit.data.y_name: quality, **along.held}, beyond, warning)


@dataclass(frozen=True)
class Cheapest:
    """The best split of a budget: how many parameters, how many samples, and the quality there."""

    compute: float
    params: Prediction
    samples: Prediction
    quality: Prediction


def cheapest(
    fit: LawFit,
    *,
    compute: float | None = None,
    quality: float | None = None,
    unique_images: float | None = None,
    level: float = 0.95,
    method: str | None = None,
    flops_per_param_sample: float = FLOPS_PER_PARAM_SAMPLE,
) -> Cheapest:
    """The N and D of lowest y for a budget `compute`, or the cheapest that reach `quality`, by a `parametric` fit.

    A `data_constrained` fit takes a budget, and `unique_images`; its intervals are those of the quality there alone.
    Results beyond the data carry a warning.
    """
    if (compute is None) == (quality is None):
        raise ValueError("give either compute, a budget in FLOPs, or quality, which the cheapest run shall reach")
    if compute is None:
        assert quality is not None
        compute = needed(
            fit, quality, over=COMPUTE, extrapolate=True, flops_per_param_sample=flops_per_param_sample
        ).value
    best = optimal_allocation(fit, compute, unique_images=unique_images, flops_per_param_sample=flops_per_param_sample)
    x = {name: float(value) for name, value in zip(fit.data.x_names, (best.params, best.samples), strict=False)}
    if len(fit.data.x_names) == 3:
        assert unique_images is not None
        x[fit.data.x_names[2]] = float(unique_images)
    there = predict_quality(fit, x, level=level, method=method)
    ends: list[Array] = [np.full(2, np.nan)] * 2
    if fit.law == "parametric":
        budget = np.array([float(compute)])
        sampled = frontier(fit, fit.samples(method).theta, budget, flops_per_param_sample)
        ends = [np.nanpercentile(each, [50 * (1 - level), 50 * (1 + level)]) for each in sampled]
        there = Prediction(there.value, float(ends[2][0]), float(ends[2][1]), x, there.beyond, there.warning)
    params, samples = (
        Prediction(float(value), float(low), float(high), {COMPUTE: float(compute)}, there.beyond, there.warning)
        for value, (low, high) in zip((best.params, best.samples), ends[:2], strict=True)
    )
    return Cheapest(float(compute), params, samples, there)
