"""Efficiency of one method over another, read off two fitted laws: how many times less of x the same quality takes.

*Sample efficiency* of method 1 over method 2 at quality `q` is `D_2(q) / D_1(q)`, in unique images or in samples seen
(two different axes, never mixed); *parameter efficiency* is `N_2(q) / N_1(q)`; *compute efficiency* the same with
training FLOPs, or with `over="compute"` of two parametric fits with the least compute that reaches `q`.

Inside the data `q` is a quality that both fitted curves pass within the measured range of x; beyond, "not reached
within the data" is raised (or, in a table over qualities, said) unless `extrapolate` asks for the law's own word, which
says by which factor it goes beyond.

At the best common quality one method stands at the very end of its data, so that about half of its bootstrap curves do
not reach it. A pair of curves of which one does not reach `q` still says something: that its x is more than the largest
(or less than the smallest) searched. Such a pair enters as the whole range of ratios that this allows, and where these
ranges decide an end of the interval that end is open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import overload

import numpy as np
import pandas as pd

from scaling_studies.compute import FLOPS_PER_PARAM_SAMPLE
from scaling_studies.law_fit import LawFit
from scaling_studies.laws import Array
from scaling_studies.slices import Slice

NUM_QUALITIES = 40
_CROSSING_GRID = 400


@dataclass(frozen=True)
class Efficiency:
    """Ratio `x_2(q) / x_1(q)` of the variable `over` at `quality`; above 1, method 1 needs less.

    `low` and `high` end its interval; `low` is 0 and `high` is inf where that end is open. `x_1` and `x_2` are what
    each method needs. `outside_1` and `outside_2` are the fractions of bootstrap curves that do not pass `quality`
    inside what was searched. `beyond_1` and `beyond_2` are the factors by which `x_1` and `x_2` lie beyond the data: 1
    inside, more only where extrapolation was asked for.
    """

    over: str
    quality: float
    ratio: float
    low: float
    high: float
    x_1: float
    x_2: float
    outside_1: float
    outside_2: float
    beyond_1: float = 1.0
    beyond_2: float = 1.0

    @property
    def extrapolated(self) -> bool:
        return max(self.beyond_1, self.beyond_2) > 1 + 1e-9


@overload
def efficiency(
    fit_1: LawFit,
    fit_2: LawFit,
    *,
    at: float,
    over: str | None = ...,
    held: Mapping[str, float] | None = ...,
    level: float = ...,
    method: str | None = ...,
    extrapolate: bool = ...,
    flops_per_param_sample: float | tuple[float, float] = ...,
) -> Efficiency: ...


@overload
def efficiency(
    fit_1: LawFit,
    fit_2: LawFit,
    *,
    at: Sequence[float] | Array | None = ...,
    over: str | None = ...,
    held: Mapping[str, float] | None = ...,
    level: float = ...,
    method: str | None = ...,
    extrapolate: bool = ...,
    flops_per_param_sample: float | tuple[float, float] = ...,
) -> pd.DataFrame: ...


def efficiency(
    fit_1: LawFit,
    fit_2: LawFit,
    *,
    at: float | Sequence[float] | Array | None = None,
    over: str | None = None,
    held: Mapping[str, float] | None = None,
    level: float = 0.95,
    method: str | None = None,
    extrapolate: bool = False,
    flops_per_param_sample: float | tuple[float, float] = FLOPS_PER_PARAM_SAMPLE,
) -> Efficiency | pd.DataFrame:
    """Efficiency of method 1 over method 2 at the quality `at`, or a table over several.

    `at` is on the scale of y. Without it the table goes over 40 qualities from the best to the worst that both reach;
    its columns are the fields of `Efficiency` and `reason`, which says why a row has no ratio. `over` is the variable
    in question, by default the only one of both fits; `held` holds the others. `method` is that of `LawFit.samples`.
    `flops_per_param_sample`, for `over="compute"`, is one number or one for each method.

    Raises `ValueError` for one quality that is not reached within the data, and for fits that cannot be compared.
    """
    pair = slices_of(fit_1, fit_2, over, held, flops_per_param_sample, method)
    if at is not None and np.ndim(at) == 0:
        return _at(*pair, float(at), level, extrapolate)  # type: ignore[arg-type]
    if at is None:
        common = common_qualities(*pair)
        if common is None:
            raise ValueError(f"not reached within the data: {_spans(*pair)}")
        at = np.geomspace(*common, NUM_QUALITIES) if min(common) > 0 else np.linspace(*common, NUM_QUALITIES)
    rows = []
    for quality in np.asarray(at, dtype=np.float64):
        try:
            rows.append(asdict(_at(*pair, float(quality), level, extrapolate)) | {"reason": None})
        except ValueError as error:
            rows.append({"over": pair[0].over, "quality": float(quality), "reason": str(error)})
    return pd.DataFrame(rows, columns=[*Efficiency.__dataclass_fields__, "reason"])


def slices_of(
    fit_1: LawFit,
    fit_2: LawFit,
    over: str | None = None,
    held: Mapping[str, float] | None = None,
    flops_per_param_sample: float | tuple[float, float] = FLOPS_PER_PARAM_SAMPLE,
    method: str | None = None,
) -> tuple[Slice, Slice]:
    """Both fits along the one variable `over`. Raises `ValueError` when they are not of one variable and quality."""
    names = [fit.data.x_names for fit in (fit_1, fit_2)]
    if over is None:
        if len(names[0]) > 1 or names[0] != names[1]:
            listed = "; ".join(", ".join(each) for each in names)
            raise ValueError(f"the fits are over {listed}: say over which variable, the same for both")
        over = names[0][0]
    if fit_1.data.y_name != fit_2.data.y_name or fit_1.form.falls != fit_2.form.falls:
        raise ValueError(f"the fits are of {fit_1.data.y_name} and {fit_2.data.y_name}: one quality is needed")
    cost = flops_per_param_sample
    cost_1, cost_2 = cost if isinstance(cost, tuple) else (cost, cost)
    held = held or {}
    return Slice(fit_1, over, held, cost_1, method), Slice(fit_2, over, held, cost_2, method)


def common_qualities(first: Slice, second: Slice) -> tuple[float, float] | None:
    """Best and worst quality that both fitted curves pass within their data; `None` when there is none."""
    (best_1, worst_1), (best_2, worst_2) = first.quality_range(), second.quality_range()
    sign = 1 if first.falls else -1
    best, worst = sign * max(sign * best_1, sign * best_2), sign * min(sign * worst_1, sign * worst_2)
    return (best, worst) if sign * (worst - best) > 1e-9 else None


@dataclass(frozen=True)
class Crossing:
    """Where two fitted curves cross: below `x` one method is better, above it the other.

    `low` and `high` are the interval of `x` among the bootstrap pairs that cross within the data, `share` is their
    fraction. `better_below` is 1 or 2.
    """

    over: str
    x: float
    quality: float
    low: float
    high: float
    share: float
    better_below: int


def crossings(
    fit_1: LawFit,
    fit_2: LawFit,
    *,
    over: str | None = None,
    held: Mapping[str, float] | None = None,
    level: float = 0.95,
    method: str | None = None,
    flops_per_param_sample: float | tuple[float, float] = FLOPS_PER_PARAM_SAMPLE,
) -> list[Crossing]:
    """Every crossing of two fitted curves inside the range of x that was measured for both, from small x to large."""
    first, second = slices_of(fit_1, fit_2, over, held, flops_per_param_sample, method)
    (low_1, high_1), (low_2, high_2) = first.x_range, second.x_range
    low, high = max(low_1, low_2), min(high_1, high_2)
    if low >= high:
        return []
    log_x = np.linspace(np.log(low), np.log(high), _CROSSING_GRID)
    gap = first.values(np.exp(log_x)) - second.values(np.exp(log_x))
    samples_1, samples_2 = _paired(first.sampled(np.exp(log_x)), second.sampled(np.exp(log_x)))
    places = _sign_changes(gap[None], log_x)[0]
    sampled = _sign_changes(samples_1 - samples_2, log_x)
    found = []
    for place in places:
        nearest = np.array([row[np.argmin(np.abs(row - place))] for row in sampled if len(row)])
        ends = np.percentile(nearest, [50 * (1 - level), 50 * (1 + level)]) if len(nearest) else [np.nan, np.nan]
        before = gap[max(int(np.searchsorted(log_x, place)) - 1, 0)]
        found.append(
            Crossing(
                over=first.over,
                x=float(np.exp(place)),
                quality=float(first.values(np.exp([place]))[0]),
                low=float(np.exp(ends[0])),
                high=float(np.exp(ends[1])),
                share=len(nearest) / len(sampled),
                better_below=1 if (before < 0) == first.falls else 2,
            )
        )
    return found


def _at(first: Slice, second: Slice, quality: float, level: float, extrapolate: bool) -> Efficiency:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: expected a fraction such as 0.95")
    for each in (first, second):
        if not extrapolate and (said := each.held_beyond()) is not None:
            raise ValueError(f"not reached within the data: {said}")
    x_1, x_2 = (each.x_at(quality, extrapolate=extrapolate) for each in (first, second))
    (least_1, most_1), (least_2, most_2) = (each.limits(quality, extrapolate=extrapolate) for each in (first, second))
    outside_1, outside_2 = float(np.mean(least_1 != most_1)), float(np.mean(least_2 != most_2))
    least_1, least_2 = _paired(least_1, least_2)
    most_1, most_2 = _paired(most_1, most_2)
    tail = 50 * (1 - level)
    with np.errstate(divide="ignore"):
        # Order statistics: an infinite ratio must make the end infinite, where interpolation would give NaN.
        low = np.percentile(least_2 / most_1, tail, method="lower")
        high = np.percentile(most_2 / least_1, 100 - tail, method="higher")
    return Efficiency(
        over=first.over,
        quality=quality,
        ratio=x_2 / x_1,
        low=float(low),
        high=float(high),
        x_1=x_1,
        x_2=x_2,
        outside_1=outside_1,
        outside_2=outside_2,
        beyond_1=float(first.beyond(x_1)[0]),
        beyond_2=float(second.beyond(x_2)[0]),
    )


def _paired(first: Array, second: Array) -> tuple[Array, Array]:
    """Equally many bootstrap samples of both, the second's shuffled: equal seeds must not make them dependent."""
    num = min(len(first), len(second))
    return first[:num], second[np.random.default_rng(0).permutation(len(second))[:num]]


def _sign_changes(gaps: Array, log_x: Array) -> list[Array]:
    """Per row of `gaps` (`S x n`) the places in `log_x` where it changes sign, by straight interpolation."""
    changes = (gaps[:, :-1] < 0) != (gaps[:, 1:] < 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = gaps[:, :-1] / (gaps[:, :-1] - gaps[:, 1:])
    places = log_x[:-1] + np.clip(np.nan_to_num(share), 0.0, 1.0) * np.diff(log_x)
    return [row[change] for row, change in zip(places, changes, strict=True)]


def _spans(first: Slice, second: Slice) -> str:
    parts = [
        f"curve {number} goes from {worst:.4g} to {best:.4g}"
        for number, (best, worst) in enumerate((first.quality_range(), second.quality_range()), start=1)
    ]
    return ", ".join(parts)
