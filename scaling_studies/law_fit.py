"""A law fitted to a table of points, from many starts, with intervals, outliers and warnings.

The objective is `sum_i w_i * huber(log law(x_i) - log y_i)`: for the laws in one variable least squares (half the sum
of squares) of log y unless `huber_delta` says otherwise, for those in N and D the published Huber loss with delta 1e-3.
An accuracy is fitted as it is instead of its logarithm, and so is any y with `scale="linear"`.

Intervals of least squares come from a parametric bootstrap that draws new noise around the fit, those of one parameter
from its profile; of a Huber loss from resampled rows. Rows of one run (column `run` or `name`) are resampled together.

With standard errors (`sigma`) points weigh by them and the noise is drawn from them. Where the points scatter more than
they explain, by the Birge ratio `max(1, sqrt(chi2 / degrees of freedom))` (Birge, Phys. Rev. 40, 1932; used by the
Particle Data Group), all of them are enlarged, by as much as the residuals can tell (see `intervals`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scaling_studies import intervals
from scaling_studies.cautions import cautions
from scaling_studies.extent import ScoredReach, beyond_sentence, overreach
from scaling_studies.fit_input import FitInput, Points, check_count, read_input
from scaling_studies.forms import Form
from scaling_studies.law_names import law_class, law_for_data
from scaling_studies.laws import Array
from scaling_studies.robust import Problem
from scaling_studies.search import Search, search

# Residuals beyond this many robust standard deviations are flagged: 1 in 16,000 normal ones.
_OUTLIER = 4.0
# Fewer runs cannot be resampled whole.
_FEWEST_RUNS = 3


@dataclass(frozen=True, eq=False)
class LawFit:
    """A converged fit. `params` has the formula's own names, `objective` is the minimised sum."""

    form: Form
    data: FitInput
    problem: Problem
    result: Search
    seed: int
    _samples: dict[tuple[str, int], intervals.Samples] = field(default_factory=dict, repr=False)

    @property
    def law(self) -> str:
        return self.form.name

    @property
    def params(self) -> dict[str, float]:
        values = self.form.to_params(self.result.theta[None])[0]
        return dict(zip(self.form.names(), map(float, values), strict=True))

    @property
    def objective(self) -> float:
        return self.result.objective

    @property
    def converged(self) -> bool:
        """Always true: `fit_law` raises instead of returning a fit that did not converge."""
        return self.result.converged

    @property
    def num_free(self) -> int:
        """Parameters that were fitted, the held ones left out."""
        return int(np.sum(self.problem.lower < self.problem.upper))

    @property
    def degrees_of_freedom(self) -> int:
        return len(self.data.y) - self.num_free

    @property
    def chi2(self) -> float:
        """Sum of squared residuals in standard errors; NaN without `sigma`."""
        return float("nan") if self.data.sigma is None else float(np.sum((self.residuals / self.data.sigma) ** 2))

    @property
    def birge_ratio(self) -> float:
        """How many times their standard errors the points scatter, at least 1; NaN without `sigma`."""
        return float(np.maximum(1.0, np.sqrt(self.chi2 / self.degrees_of_freedom)))

    @property
    def residuals(self) -> Array:
        """log of the law over y per row (for an accuracy: their difference), `n`."""
        return self.form.value(self.data.x, self.result.theta[None])[0] - self.problem.target

    @property
    def scale(self) -> float:
        """Robust standard deviation of the weighted residuals: 1.4826 times the median absolute one."""
        size = np.abs(self.residuals) * np.sqrt(self.data.weight)
        return float(1.4826 * np.median(size) * np.sqrt(len(size) / (len(size) - self.num_free)))

    @property
    def outliers(self) -> list[Any]:
        """Labels of the rows whose residual exceeds 4 robust standard deviations; they stay in the fit."""
        size = np.abs(self.residuals) * np.sqrt(self.data.weight)
        far = size > max(_OUTLIER * self.scale, 1e-9)
        return self.data.rows[far].tolist()

    @property
    def x_range(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest measured value of every variable."""
        return {
            name: (float(row.min()), float(row.max())) for name, row in zip(self.data.x_names, self.data.x, strict=True)
        }

    def predict(self, *x: Any, **named: Any) -> Array:
        """y at `x`: arrays in the order of the fit's variables or by name (broadcast), or one table with them.

        Raises `ValueError` where a variable is missing, or 0 or less.
        """
        if x and named:
            raise ValueError(f"name all variables ({', '.join(self.data.x_names)}) or none, got {', '.join(named)}")
        stacked, shape = self._stacked((named,) if named else x)
        return self.form.predict(stacked, self.result.theta[None])[0].reshape(shape)[()]

    @property
    def default_method(self) -> str:
        """The bootstrap of this fit: `runs` where a run has several rows, else `cases` for Huber, `noise` for squares.

        Fewer than 3 runs cannot be resampled; `warnings` says what that costs.
        """
        if _FEWEST_RUNS <= len(np.unique(self.data.runs)) < len(self.data.runs):
            return "runs"
        return "noise" if np.isinf(self.problem.delta) or self.data.sigma is not None else "cases"

    @property
    def has_profile(self) -> bool:
        """Whether parameters have profile intervals by default: least squares of independent rows without `sigma`."""
        return self.default_method == "noise" and self.data.sigma is None

    def samples(self, method: str | None = None, num_samples: int = intervals.NUM_SAMPLES) -> intervals.Samples:
        """Bootstrap samples: `noise`, `residuals`, `cases` or `runs` (see `intervals.bootstrap`)."""
        method = method or self.default_method
        if (method, num_samples) not in self._samples:
            self._samples[method, num_samples] = intervals.bootstrap(
                self.problem,
                self.result.alternatives,
                self.data.runs,
                self.num_free,
                method,
                num_samples,
                self.seed,
                self.data.sigma,
            )
        return self._samples[method, num_samples]

    def interval_samples(self, method: str | None = None) -> intervals.Samples | None:
        """The bootstrap samples behind `interval` by `method`; `None` where a profile has no need of them."""
        return None if method == "profile" or (method is None and self.has_profile) else self.samples(method)

    def interval(
        self, name: str, level: float = 0.95, *, method: str | None = None, num_samples: int = intervals.NUM_SAMPLES
    ) -> tuple[float, float]:
        """Interval of one parameter by `method`: `profile` or one of `samples`.

        By default profile likelihood for squares without standard errors, otherwise the bootstrap. It is that of the
        law: a further run scatters around it besides.
        """
        index = self._index(name)
        if not 0 < level < 1:
            raise ValueError(f"level is {level}: expected a fraction such as 0.95")
        if self.problem.lower[index] == self.problem.upper[index]:
            return self.params[name], self.params[name]
        if method == "profile" or (method is None and self.has_profile):
            return intervals.profile(
                self.problem, self.result.theta, self.result.objective, index, level, self.num_free
            )
        params = self.form.to_params(self.samples(method, num_samples).theta)[:, index]
        low, high = np.percentile(params, [50 * (1 - level), 50 * (1 + level)])
        return float(low), float(high)

    def band(self, *x: Any, level: float = 0.95, method: str | None = None) -> tuple[Array, Array]:
        """Lower and upper ends of the pointwise bootstrap interval of the curve at `x` (as `predict` takes it)."""
        stacked, shape = self._stacked(x)
        values = self.form.predict(stacked, self.samples(method).theta)
        low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)], axis=0)
        return low.reshape(shape), high.reshape(shape)

    def undetermined(self) -> dict[str, str]:
        """Per parameter that the data do not determine, a sentence that says so."""
        theta = self.result.theta
        reached = {} if self.has_profile else intervals.reaches_bounds(self.problem, self.samples())
        ends = {name: self.interval(name) for name in self.form.names()}
        return {
            **intervals.spread_widely(self.form, theta, ends),
            **reached,
            **intervals.undetermined(self.problem, theta, self.num_free),
        }

    @property
    def warnings(self) -> list[str]:
        """Sentences that whoever shows this fit must show: about the data, outliers, and undetermined parameters."""
        return self.warnings_for(None)

    def warnings_for(self, method: str | None) -> list[str]:
        """`warnings` where the intervals are shown by `method`."""
        found = [*self.data.warnings, *cautions(self, method)]
        if self.outliers:
            rows = ", ".join(map(str, self.outliers[:8])) + (", ..." if len(self.outliers) > 8 else "")
            found.append(f"{len(self.outliers)} of {len(self.data.y)} rows lie far off the law (kept): {rows}")
        return found + list(self.undetermined().values())

    def beyond(self, *x: Any) -> float:
        """The largest factor by which `x` lies beyond the data, 1 inside (see `extent`)."""
        return float(overreach(self.data.x_names, self.data.x, self._stacked(x)[0])[0].max())

    def extrapolation(self, *x: Any, tested: ScoredReach | None = None) -> str | None:
        """A warning when `x` lies beyond the data and what an extrapolation test validated (`trust`), else `None`."""
        return beyond_sentence(self.data.x_names, self.data.x, self._stacked(x)[0], tested)

    def summary(self, level: float = 0.95, *, method: str | None = None) -> str:
        """The fit in words and numbers, with intervals as `interval` gives them."""
        delta, samples = self.problem.delta, self.interval_samples(method)
        drawn = f"{samples.num_drawn} bootstrap samples, {len(samples.theta)} converged" if samples else "profile"
        loss = "half the sum of squares" if np.isinf(delta) else f"Huber loss (delta {delta:g}), summed,"
        scale = "log " if self.form.link == "log" else ""
        lines = [
            f"{self.form.title}: {self.form.formula}",
            f"{self.form.source}",
            f"{len(self.data.y)} points; {loss} of {scale}{self.data.y_name}: {self.objective:.6g}",
            f"intervals: {drawn}",
            f"starts: {self.result.num_starts}, converged {self.result.num_converged}, at the best minimum "
            f"{self.result.num_at_best}",
        ]
        for parameter in self.form.parameters:
            low, high = self.interval(parameter.name, level, method=method)
            ends = "held" if low == high else f"{low:.4g} to {high:.4g}"
            lines.append(f"  {parameter.name} = {self.params[parameter.name]:.5g} ({ends}) {parameter.meaning}")
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings_for(method))])

    def _index(self, name: str) -> int:
        if name not in self.form.names():
            raise ValueError(f"law {self.law!r} has no parameter {name!r}; it has {', '.join(self.form.names())}")
        return self.form.names().index(name)

    def _stacked(self, x: tuple[Any, ...]) -> tuple[Array, tuple[int, ...]]:
        names = self.data.x_names
        if len(x) == 1 and isinstance(x[0], (pd.DataFrame, Mapping)):
            if not set(names) <= set(x[0]):
                got = ", ".join(map(str, x[0]))
                raise ValueError(f"law {self.law!r} was fitted over {', '.join(names)}: got {got}")
            x = tuple(np.asarray(x[0][name], dtype=np.float64) for name in names)
        elif len(x) == 1 and len(names) > 1 and isinstance(x[0], (tuple, list)):
            x = tuple(x[0])
        if len(x) != len(names):
            raise ValueError(f"law {self.law!r} was fitted over {', '.join(names)}: got {len(x)} arrays")
        arrays = np.broadcast_arrays(*(np.asarray(values, dtype=np.float64) for values in x))
        stacked = np.stack([values.ravel() for values in arrays])
        if not np.all(stacked > 0):
            raise ValueError(f"{', '.join(names)} must be above 0, got {stacked.min():g}")
        return stacked, arrays[0].shape


def fit_law(
    points: Points,
    law: str,
    *,
    x: str | Sequence[str],
    y: str,
    sigma: str | None = None,
    fixed: Mapping[str, float] | None = None,
    huber_delta: float | None = None,
    scale: str | None = None,
    num_breaks: int | None = None,
    seed: int = 0,
) -> LawFit:
    """Fit the law called `law` to the columns `x` and `y` of `points`.

    `sigma` names a column of standard errors of y. `fixed` holds parameters at values; by default the law's own (R_D*
    and R_N*), `{}` fits all. `huber_delta` is the threshold of the Huber loss, `math.inf` for least squares; by default
    the law's own. `scale` is that of the residuals: `log`, or `linear`, where y may be 0; by default log, linear for
    accuracies. `num_breaks` is for `bnsl`. `seed` is for the bootstrap alone. The same points give the same fit.

    Raises `ValueError` in one line for data that no fit can use and for a fit that does not converge.
    """
    data = read_input(points, law_class(law, scale), x, y, sigma)
    form = law_for_data(law, data.x, data.y, num_breaks=num_breaks, scale=scale)
    problem = problem_of(form, data, fixed, form.huber_delta if huber_delta is None else huber_delta)
    num_free = int(np.sum(problem.lower < problem.upper))
    check_count(form, data.x, data.x_names, num_free)
    result = search(problem, np.unique(np.clip(form.starts(), problem.lower, problem.upper), axis=0))
    if not result.converged:
        raise ValueError(
            f"the {form.title} did not converge from the best of {result.num_starts} starts; look at the points"
        )
    return LawFit(form, data, problem, result, seed)


def problem_of(form: Form, data: FitInput, fixed: Mapping[str, float] | None, delta: float) -> Problem:
    """The optimisation problem of a fit; a held parameter has equal bounds."""
    if not delta > 0:
        raise ValueError(f"huber_delta is {delta}: expected a number above 0, or math.inf for least squares")
    lower, upper = form.lower.copy(), form.upper.copy()
    for name, value in (form.held if fixed is None else fixed).items():
        possible = [other for other in form.names() if not form.tied or other != form.tied[0]]
        if name not in possible:
            raise ValueError(f"fixed: {name!r} cannot be held in law {form.name!r}; these can: {', '.join(possible)}")
        index = form.names().index(name)
        template = form.to_params(((form.lower + form.upper) / 2)[None])
        template[0, index] = value
        with np.errstate(all="ignore"):
            held = form.from_params(template)[0, index]
        if not np.isfinite(held):
            raise ValueError(f"fixed: {name} = {value} is outside the law's range")
        lower[index] = upper[index] = held
    return Problem(form, data.x, form.linked(data.y), data.weight, delta, lower, upper)
