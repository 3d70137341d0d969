"""From many starts to the best minimum.

Every start first runs down its valley by least squares on a few points spread over the data; starts whose curves have
met there go on as one, to the end, on all points and the loss asked for. Starts that have met would run the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scaling_studies.laws import Array
from scaling_studies.robust import Problem, minimise, settle

_FEW_POINTS = 32
_SETTLE_STEPS = 120
# Two starts have met when their curves are nowhere further apart than this in log y, or in shares of the largest y.
_SAME_VALUE = 0.005
# Minima within this fraction of the lowest are the lowest.
_SAME_OBJECTIVE = 1e-9
# Half the square of a residual of rounding's size: points that lie on the law.
_NO_RESIDUAL = 1e-18
_NUM_ALTERNATIVES = 3


@dataclass(frozen=True)
class Search:
    """The lowest minimum found: `theta` (`P`), its objective, and how the starts fared.

    `alternatives` (`K x P`) are the lowest distinct minima, best first: where else a bootstrap sample may have its own.
    """

    theta: Array
    objective: float
    converged: bool
    alternatives: Array
    num_starts: int
    num_converged: int
    num_at_best: int


def search(problem: Problem, starts: Array) -> Search:
    """Minimise one problem (`target` and `weight` of shape `n`) from every row of `starts` (`K x P`)."""
    chosen = spread_points(problem.x, max(_FEW_POINTS, 6 * starts.shape[1]))
    few = replace(
        problem,
        x=problem.x[:, chosen],
        target=problem.target[chosen],
        weight=problem.weight[chosen],
        delta=np.inf,
    )
    settled = settle(few, starts, max_steps=_SETTLE_STEPS)
    with np.errstate(all="ignore"):  # starts that went astray overflow; they are nobody's neighbor
        unit = 1.0 if problem.form.link == "log" else float(np.abs(few.target).max())
        curves = problem.form.value(few.x, settled.theta) / unit
        first, valley = _valleys(curves, settled.objective)
    minima = minimise(problem, settled.theta[first])
    order = np.argsort(np.where(np.isfinite(minima.objective), minima.objective, np.inf), kind="stable")
    best = order[0]
    at_best = minima.objective <= minima.objective[best] * (1 + _SAME_OBJECTIVE) + _NO_RESIDUAL * problem.x.shape[1]
    kept = _distinct(minima.objective[order])[:_NUM_ALTERNATIVES]
    return Search(
        theta=minima.theta[best],
        objective=float(minima.objective[best]),
        converged=bool(minima.converged[best]),
        alternatives=minima.theta[order[kept]],
        num_starts=len(starts),
        num_converged=int(minima.converged[valley].sum()),
        num_at_best=int(at_best[valley].sum()),
    )


def spread_points(x: Array, num_points: int) -> NDArray[np.intp]:
    """Up to `num_points` indices of points far from each other in log x (`V x n`), the extremes among them."""
    if x.shape[1] <= num_points:
        return np.arange(x.shape[1])
    place = np.log(x)
    place = (place - place.mean(axis=1, keepdims=True)) / place.std(axis=1, keepdims=True)
    chosen = [int(np.argmin(place[0]))]
    distance = np.sum((place - place[:, chosen]) ** 2, axis=0)
    while len(chosen) < num_points:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.sum((place - place[:, chosen[-1:]]) ** 2, axis=0))
    return np.array(chosen)


def _valleys(curves: Array, objective: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Starts (`K` indices) that stand for all, lowest first, and which of them each of `curves` (`S x n`) met."""
    valley = np.full(len(curves), -1)
    chosen: list[int] = []
    left = np.argsort(objective, kind="stable")
    while len(left):
        near = np.abs(curves[left] - curves[left[0]]).max(axis=1) <= _SAME_VALUE
        near[0] = True  # also where a curve is not finite, which is near to nothing
        valley[left[near]] = len(chosen)
        chosen.append(int(left[0]))
        left = left[~near]
    return np.array(chosen), valley


def _distinct(sorted_objectives: Array) -> NDArray[np.intp]:
    """Indices of the objectives that are above the one before by more than rounding."""
    apart = np.diff(sorted_objectives) > 1e-6 * np.abs(sorted_objectives[1:])
    return np.flatnonzero(np.concatenate([[True], apart]))
