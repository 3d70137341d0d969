"""A fitted law along one variable, the others held: what efficiency, crossings and predictions are read off.

A slice runs over one of the fit's own variables or, for the parametric law, over `compute`: then at every budget the
best split of it between N and D is taken. Its range is the measured one; of compute, the budgets of the runs whose best
N and D lie inside the data (see `extent`). Nothing is read beyond it unless `extrapolate` asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.optimize import brentq

from scaling_studies.compute import FLOPS_PER_PARAM_SAMPLE, frontier
from scaling_studies.extent import ROUNDING, overreach
from scaling_studies.law_fit import LawFit
from scaling_studies.laws import Array

COMPUTE = "compute"
# Of the grid on which a curve is searched for a quality; between its places curves are taken as straight in log x.
_GRID = 600
# How far beyond the data, either way, an extrapolation looks.
_FAR = 1e6


@dataclass(frozen=True, eq=False)
class Slice:
    """`fit` along `over`, with a value in `held` for each other variable.

    Raises `ValueError` for a variable too many or too few.
    """

    fit: LawFit
    over: str
    held: Mapping[str, float] = field(default_factory=dict)
    flops_per_param_sample: float = FLOPS_PER_PARAM_SAMPLE
    method: str | None = None
    _sampled: dict[bool, Array] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        names = self.fit.data.x_names
        if self._splits_compute:
            wanted: set[str] = set()
            if self.fit.law != "parametric":
                raise ValueError(
                    f"law {self.fit.law!r} says nothing over compute: fit law 'parametric', or y over flops"
                )
        elif self.over not in names:
            raise ValueError(f"over is {self.over!r}: the fit of {self.fit.data.y_name} is over {', '.join(names)}")
        else:
            wanted = set(names) - {self.over}
        if wanted != set(self.held):
            held = ", ".join(self.held) or "nothing"
            need = ", ".join(sorted(wanted)) or "nothing"
            raise ValueError(f"along {self.over} the law {self.fit.law!r} needs {need} held, got {held}")

    @property
    def falls(self) -> bool:
        return self.fit.form.falls

    @cached_property
    def x_range(self) -> tuple[float, float]:
        """Smallest and largest measured x; of compute the budgets whose best N and D lie inside the data."""
        if not self._splits_compute:
            return self.fit.x_range[self.over]
        budgets = np.geomspace(*self._measured_compute, _GRID)
        inside = budgets[self.beyond(budgets) <= 1 + ROUNDING]
        if len(inside) < 2:
            raise ValueError("not reached within the data: the best N and D of no measured budget lie inside the data")
        return float(inside.min()), float(inside.max())

    def values(self, x: Array) -> Array:
        """y at `x` (`n`)."""
        return self._curves(x, self.fit.result.theta[None])[0]

    def sampled(self, x: Array) -> Array:
        """y at `x` (`n`) of every bootstrap sample, `S x n`."""
        return self._curves(x, self.fit.samples(self.method).theta)

    def quality_range(self) -> tuple[float, float]:
        """Best and worst y within the data."""
        worst, best = self.values(np.array(self.x_range))
        return float(best), float(worst)

    def x_at(self, quality: float, *, extrapolate: bool = False) -> float:
        """The x at which the curve is `quality`. Raises `ValueError` where it is not within the data (or the law)."""
        low, high = self._searched(extrapolate)
        first, last = (float(value) for value in self._gap(self.values(np.array([low, high])), quality))
        slack = 1e-9 * abs(quality)
        if not (first >= -slack and last <= slack):  # NaN too: parameters without an optimum
            name = self.fit.data.y_name
            if extrapolate:
                raise ValueError(f"{name} {quality:.4g} is not reached by the law within a factor {_FAR:g} of the data")
            best, worst = self.quality_range()
            raise ValueError(
                f"not reached within the data: {name} {quality:.4g}, the curve spans {best:.4g} to {worst:.4g}"
            )
        if first <= 0 or last >= 0:
            return low if first <= 0 else high
        place = brentq(
            lambda log_x: float(self._gap(self.values(np.exp([log_x])), quality)[0]),
            np.log(low),
            np.log(high),
            xtol=1e-12,
        )
        return float(np.exp(place))

    def limits(self, quality: float, *, extrapolate: bool = False) -> tuple[Array, Array]:
        """Per bootstrap curve the least and the most x that `quality` may take (`S`).

        They are equal where the curve passes it inside the data (or the far wider span of an extrapolation).
        """
        low, high = self._searched(extrapolate)
        log_x = np.linspace(np.log(low), np.log(high), _GRID)
        if extrapolate not in self._sampled:
            self._sampled[extrapolate] = self.sampled(np.exp(log_x))
        gap = self._gap(self._sampled[extrapolate], quality)
        gap = np.where(np.isnan(gap), np.inf, gap)  # a sample without an optimum reaches nothing
        reached = gap <= 0
        first = np.argmax(reached, axis=1)
        rows = np.arange(len(gap))
        before = gap[rows, np.maximum(first - 1, 0)]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = before / (before - gap[rows, first])
            inside = np.exp(
                log_x[np.maximum(first - 1, 0)] + np.where(np.isfinite(share), share, 1.0) * np.diff(log_x)[0]
            )
        never, always = ~reached.any(axis=1), reached[:, 0]
        least = np.where(always, 0.0, np.where(never, high, inside))
        most = np.where(always, low, np.where(never, np.inf, inside))
        return least, most

    def beyond(self, x: Array | float) -> Array:
        """By which factor `x` (of compute the best N and D there) and what is held lie beyond the data; 1 inside."""
        x = np.atleast_1d(np.asarray(x, dtype=np.float64))
        if self._splits_compute:
            best = frontier(self.fit, self.fit.result.theta[None], x, self.flops_per_param_sample)
            place = np.stack([each[0] for each in best[:2]])
        else:
            place = self._place(x)
        return overreach(self.fit.data.x_names, self.fit.data.x, place)[0]

    def held_beyond(self) -> str | None:
        """A sentence when a held value lies beyond the data."""
        for name, value in self.held.items():
            low, high = self.fit.x_range[name]
            if not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
                return f"{name} is held at {value:.4g}, measured were {low:.4g} to {high:.4g}"
        return None

    @property
    def _splits_compute(self) -> bool:
        return self.over == COMPUTE and COMPUTE not in self.fit.data.x_names

    @property
    def _measured_compute(self) -> tuple[float, float]:
        """Smallest and largest compute of the runs."""
        compute = self.flops_per_param_sample * np.prod(self.fit.data.x, axis=0)
        return float(compute.min()), float(compute.max())

    def _searched(self, extrapolate: bool) -> tuple[float, float]:
        if not extrapolate:
            return self.x_range
        low, high = self._measured_compute if self._splits_compute else self.x_range
        return low / _FAR, high * _FAR

    def _gap(self, values: Array, quality: float) -> Array:
        """Above 0 where `quality` is not reached yet."""
        return values - quality if self.falls else quality - values

    def _curves(self, x: Array, theta: Array) -> Array:
        if self._splits_compute:
            return frontier(self.fit, theta, x, self.flops_per_param_sample)[2]
        return self.fit.form.predict(self._place(x), theta)

    def _place(self, x: Array) -> Array:
        """All variables (`V x n`) at `x`."""
        names = self.fit.data.x_names
        return np.stack([x if name == self.over else np.full_like(x, self.held[name]) for name in names])
