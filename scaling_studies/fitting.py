"""One law fitted to one curve: weighted least squares, and intervals by a parametric bootstrap.

Every point is weighted by its own standard error; repeats (seeds) are simply more points at the same x. Where the
points scatter about the fit more than their standard errors explain, all of them are enlarged by the Birge ratio
`max(1, sqrt(chi2 / degrees of freedom))` (Birge, Phys. Rev. 40, 1932; used by the Particle Data Group for the same
purpose) before the bootstrap draws new points around the fit. The same data and seed give the same numbers, bit for
bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scaling_studies.laws import Array, Law, Parameter
from scaling_studies.least_squares import Minimum, minimise

NUM_BOOTSTRAP = 2000
CONFIDENCE = 0.95
# Below this, the extra scatter of a few points is as well explained by chance.
_NOTICEABLE_SCATTER = 1.5
# From here on the Birge ratio is known to about a fifth.
_MANY_DEGREES_OF_FREEDOM = 10


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted law with the data it was fitted to and the bootstrap's parameter vectors.

    `params` has shape `P`, `samples` `num_bootstrap x P`; `sigma` are the standard errors before the Birge ratio.
    """

    law: Law
    x: Array
    y: Array
    sigma: Array
    params: Array
    chi2: float
    samples: Array
    lower: Array
    upper: Array
    num_starts: int
    num_starts_converged: int
    num_samples_converged: int

    @property
    def degrees_of_freedom(self) -> int:
        return len(self.x) - len(self.params)

    @property
    def birge_ratio(self) -> float:
        return _birge_ratio(self.chi2, self.degrees_of_freedom)

    @property
    def x_range(self) -> tuple[float, float]:
        """Smallest and largest measured x: the fit says nothing beyond them."""
        return float(self.x.min()), float(self.x.max())

    def predict(self, x: Array) -> Array:
        return self.law.predict(x, self.params)

    def interval(self, name: str) -> tuple[float, float]:
        """The 95% interval of the parameter `name`."""
        index = [parameter.name for parameter in self.law.parameters].index(name)
        low, high = percentiles(self.samples[:, index])
        return float(low), float(high)

    def band(self, x: Array) -> tuple[Array, Array]:
        """Lower and upper ends of the pointwise 95% interval of the fitted curve at `x`."""
        return percentiles(self.law.predict(x, self.samples))

    def caution(self) -> str | None:
        """What a reader of the intervals must know: extra scatter is itself poorly known from a few points.

        Simulated with a scatter of 2.4 standard errors, the 95% band of a fit with 1 degree of freedom covers the truth
        in 77% and one with 5 in 85% of cases; without extra scatter it is 95% or more.
        """
        if self.birge_ratio < _NOTICEABLE_SCATTER or self.degrees_of_freedom > _MANY_DEGREES_OF_FREEDOM:
            return None
        degrees = "1 degree" if self.degrees_of_freedom == 1 else f"{self.degrees_of_freedom} degrees"
        return (
            f"the points scatter {self.birge_ratio:.2g} times as much as the probe's own noise, judged from "
            f"{degrees} of freedom: the intervals may be too narrow, more seeds would tell"
        )

    def undetermined(self) -> dict[str, str]:
        """Per parameter that the data do not determine, the sentence that says so: its interval reaches a bound."""
        sentences = {}
        for index, parameter in enumerate(self.law.parameters):
            low, high = self.interval(parameter.name)
            slack = 1e-3 * (self.upper[index] - self.lower[index])
            sentence = _undetermined(
                parameter, low <= self.lower[index] + slack, high >= self.upper[index] - slack, low, high
            )
            if sentence:
                sentences[parameter.name] = sentence
        return sentences


def fit_curve(
    law_class: type[Law],
    x: Array,
    y: Array,
    sigma: Array,
    *,
    x_name: str = "x",
    seed: int = 0,
    num_bootstrap: int = NUM_BOOTSTRAP,
) -> Fit:
    """Fit `law_class` to the points `(x, y)` with standard errors `sigma` (all of shape `n`, `x` and `sigma` positive).

    `x_name` names x in messages. Raises `ValueError` in one sentence when there are fewer different x than the law's
    parameters + 1, and when the best of the starts does not converge: such a fit is never returned.
    """
    x, y, sigma = (np.asarray(values, dtype=np.float64) for values in (x, y, sigma))
    for name, values, smallest in ((x_name, x, 0.0), ("y", y, -math.inf), ("sigma", sigma, 0.0)):
        wrong = values[~(np.isfinite(values) & (values > smallest))]
        if len(wrong):
            raise ValueError(f"{name} has the value {wrong[0]}; expected finite numbers above {smallest}")
    num_distinct, num_needed = len(np.unique(x)), num_points_needed(law_class)
    if num_distinct < num_needed:
        raise ValueError(f"not enough points: {num_distinct} distinct {x_name}, a {law_class.title} needs {num_needed}")
    law = law_class.for_data(x)
    lower, upper = law.bounds(y)
    starts = law.starts(x, y)
    minimum = minimise(law, x, y, sigma, starts, lower, upper)
    best = int(np.argmin(minimum.chi2))
    if not minimum.converged[best]:
        raise ValueError(f"the {law.title} did not converge from the best of {len(starts)} starts; look at the points")
    params, chi2 = minimum.params[best], float(minimum.chi2[best])
    inflated = sigma * _birge_ratio(chi2, len(x) - len(params))
    drawn = law.predict(x, params) + inflated * np.random.default_rng(seed).standard_normal((num_bootstrap, len(x)))
    samples = _best_of_starts(law, x, drawn, sigma, np.vstack([params, starts]), lower, upper)
    return Fit(
        law=law,
        x=x,
        y=y,
        sigma=sigma,
        params=params,
        chi2=chi2,
        samples=samples.params,
        lower=lower,
        upper=upper,
        num_starts=len(starts),
        num_starts_converged=int(minimum.converged.sum()),
        num_samples_converged=int(samples.converged.sum()),
    )


def num_points_needed(law_class: type[Law]) -> int:
    """Different x that a fit needs: one more than the law has parameters, so that something is left to test it."""
    return len(law_class.parameters) + 1


def percentiles(samples: Array) -> tuple[Array, Array]:
    """Ends of the central 95% interval over the first axis."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(samples, [tail, 100 - tail], axis=0)
    return low, high


def _birge_ratio(chi2: float, degrees_of_freedom: int) -> float:
    return max(1.0, math.sqrt(chi2 / degrees_of_freedom))


def _best_of_starts(law: Law, x: Array, y: Array, sigma: Array, starts: Array, lower: Array, upper: Array) -> Minimum:
    """The best minimum per row of `y` (`S x n`) over all `starts` (`K x P`)."""
    num_samples, num_starts = len(y), len(starts)
    stacked = minimise(law, x, np.repeat(y, num_starts, axis=0), sigma, np.tile(starts, (num_samples, 1)), lower, upper)
    chi2 = stacked.chi2.reshape(num_samples, num_starts)
    best = np.argmin(chi2, axis=1)
    rows = np.arange(num_samples)
    return Minimum(
        params=stacked.params.reshape(num_samples, num_starts, -1)[rows, best],
        chi2=chi2[rows, best],
        converged=stacked.converged.reshape(num_samples, num_starts)[rows, best],
    )


def _undetermined(parameter: Parameter, at_lower: bool, at_upper: bool, low: float, high: float) -> str | None:
    if at_lower and at_upper:
        return f"{parameter.name} is not determined by these points: its interval fills the allowed range"
    if at_lower:
        return f"{parameter.name} has only an upper limit ({high:.3g}): its interval reaches the lower bound"
    if at_upper:
        return f"{parameter.name} has only a lower limit ({low:.3g}): its interval reaches the upper bound"
    return None
