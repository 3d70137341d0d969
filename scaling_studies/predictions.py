"""What a fitted law says: the quality at a point, what a quality takes, how a budget is best spent.

Every answer has an interval from the fit's bootstrap and says by which factor it goes beyond the data. The interval is
that of the law: a single run scatters around it by its own noise besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scaling_studies.compute import FLOPS_PER_PARAM_SAMPLE, frontier, frontier_compute, optimal_allocation
from scaling_studies.extent import ROUNDING, ScoredReach
from scaling_studies.law_fit import LawFit
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
    fit: LawFit,
    at: Mapping[str, float],
    *,
    level: float = 0.95,
    method: str | None = None,
    tested: ScoredReach | None = None,
) -> Prediction:
    """y at one point, a value per variable of the fit: `predict_quality(fit, {"params": 1e9, "samples_seen": 1e10})`.

    `tested` is what an extrapolation test of the law has scored (`trust.extrapolation_test(...).tested`): without it
    everything beyond the data carries a warning. The interval is that of the law, not of a single run.
    """
    names = fit.data.x_names
    if set(at) != set(names):
        raise ValueError(f"law {fit.law!r} was fitted over {', '.join(names)}: got {', '.join(at) or 'nothing'}")
    x = [float(at[name]) for name in names]
    low, high = fit.band(*x, level=level, method=method)
    warning = fit.extrapolation(*x, tested=tested)
    return Prediction(float(fit.predict(*x)), float(low), float(high), dict(at), fit.beyond(*x), warning)


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
    where = f"{beyond:.3g} times beyond the data" if beyond > 1 + ROUNDING else None
    warning = "; ".join(text for text in (where, along.held_beyond()) if text is not None) or None
    return Prediction(x, low, high, {fit.data.y_name: quality, **along.held}, beyond, warning)


@dataclass(frozen=True)
class Cheapest:
    """The best split of a budget: how many parameters, how many samples, and the quality there.

    What was asked for, `compute` or `quality`, is exact: both ends of its interval are its value.
    """

    compute: Prediction
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

    Of `quality` the compute has an interval, and N and D are those of each sample's own compute. A `data_constrained`
    fit takes a budget, and `unique_images`; its intervals are those of the quality there alone.
    Results beyond the data carry a warning.
    """
    if (compute is None) == (quality is None):
        raise ValueError("give either compute, a budget in FLOPs, or quality, which the cheapest run shall reach")
    cost = flops_per_param_sample
    if compute is None:
        assert quality is not None
        compute = needed(fit, quality, over=COMPUTE, method=method, extrapolate=True, flops_per_param_sample=cost).value
    best = optimal_allocation(fit, compute, unique_images=unique_images, flops_per_param_sample=cost)
    x = {name: float(value) for name, value in zip(fit.data.x_names, (best.params, best.samples), strict=False)}
    if len(fit.data.x_names) == 3:
        assert unique_images is not None
        x[fit.data.x_names[2]] = float(unique_images)
    there = predict_quality(fit, x, level=level, method=method)
    budget, size, samples = (float(each) for each in (compute, best.params, best.samples))
    ends = [(budget, budget), (np.nan, np.nan), (np.nan, np.nan), (there.low, there.high)]
    if fit.law == "parametric":  # of the other law every sample would be one more search: its quality alone has ends
        ends = _cheapest_ends(fit, budget, quality, level, method, cost)
    at = {COMPUTE: budget} if quality is None else {fit.data.y_name: float(quality)}
    values = (budget, size, samples, there.value if quality is None else float(quality))
    answers = zip(values, ends, (at, at, at, x), strict=True)
    return Cheapest(*(Prediction(value, *pair, place, there.beyond, there.warning) for value, pair, place in answers))


def _cheapest_ends(
    fit: LawFit, compute: float, quality: float | None, level: float, method: str | None, cost: float
) -> list[tuple[float, float]]:
    """Intervals of compute, N, D and y, each bootstrap sample with its own frontier; what was asked for is exact.

    A sample that never reaches `quality` takes more than any compute, one without an optimum may take any.
    """
    theta, tails = fit.samples(method).theta, (50 * (1 - level), 50 * (1 + level))
    budgets = np.full(len(theta), compute) if quality is None else frontier_compute(fit, theta, quality, cost)
    size, samples, reached = (each[:, 0] for each in frontier(fit, theta, budgets[:, None], cost))
    ends = []
    for each in (budgets, *(np.where(np.isinf(budgets), np.inf, each) for each in (size, samples))):
        is_open = np.isnan(each)
        low = np.percentile(np.where(is_open, 0.0, each), tails[0], method="lower")
        high = np.percentile(np.where(is_open, np.inf, each), tails[1], method="higher")
        ends.append((float(low), float(high)))
    if quality is not None:
        return [*ends, (float(quality), float(quality))]
    low, high = np.nanpercentile(reached, tails)
    return [*ends, (float(low), float(high))]
