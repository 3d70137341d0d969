"""Compute-optimal training: the three approaches of Hoffmann et al. 2022 (arXiv 2203.15556), section 3.

Compute is `C = flops_per_param_sample * N * D`: 6 for tokens (Kaplan et al. 2020), for images 6 times the tokens of
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import minimize_scalar

from scaling_studies.fit_input import Points
from scaling_studies.law_fit import LawFit
from scaling_studies.laws import Array
from scaling_studies.loss_laws import DataConstrained

FLOPS_PER_PARAM_SAMPLE = 6.0


@dataclass(frozen=True)
class PowerLine:
    """`y = scale * x^exponent` by least squares in log-log, with the exponent's Student interval (inf for 2 points)."""

    scale: float
    exponent: float
    exponent_low: float
    exponent_high: float
    num_points: int

    def predict(self, x: Any) -> Array:
        return self.scale * np.asarray(x, dtype=np.float64) ** self.exponent


def power_line(x: Array, y: Array, *, level: float = 0.95) -> PowerLine:
    """The line through (x, y), both positive, at least 2 different x."""
    log_x, log_y = np.log(x), np.log(y)
    if len(np.unique(log_x)) < 2:
        raise ValueError(f"not enough points: {len(np.unique(log_x))} distinct x, a power line needs 2")
    centre = log_x - log_x.mean()
    exponent = float(centre @ log_y / (centre @ centre))
    intercept = float(log_y.mean() - exponent * log_x.mean())
    left = len(x) - 2
    residual = log_y - intercept - exponent * log_x
    spread = np.sqrt(residual @ residual / left / (centre @ centre)) if left else np.inf
    half = float(spread * stats.t.ppf((1 + level) / 2, left)) if left else float("inf")
    return PowerLine(float(np.exp(intercept)), exponent, exponent - half, exponent + half, len(x))


@dataclass(frozen=True, eq=False)
class Envelope:
    """Lower envelope: per bin of compute the row of the lowest `y`, and `at`, its compute in `line` through (at, y)."""

    table: pd.DataFrame
    line: PowerLine


def envelope(
    points: Points, *, compute: str, y: str, num_bins: int = 5, margin: float = 0.1, at: str = "centers"
) -> Envelope:
    """Approach 1: the lowest y in each of `num_bins` equal bins of log10 compute, and the power law through them.

    Bins go from the smallest compute to `margin` (in log10) beyond the largest, which keeps the largest inside (Cherti
    et al. 2022, arXiv 2212.07143). Empty bins are left out. The line takes these y at the centers of their bins, as
    published, or with `at="runs"` at the compute of the runs, which few or uneven budgets need. `table` keeps the
    lowest rows' other columns, from which `power_line(table[compute], table["params"])` is N_opt(C).
    """
    table = points if isinstance(points, pd.DataFrame) else pd.DataFrame(dict(points))
    values, errors = _positive(table, compute), _positive(table, y)
    log_c = np.log10(values)
    edges = np.linspace(log_c.min(), log_c.max() + margin, num_bins + 1)
    bins = np.digitize(log_c, edges[1:-1])
    lowest = [int(np.flatnonzero(bins == k)[np.argmin(errors[bins == k])]) for k in np.unique(bins)]
    if at not in ("centers", "runs"):
        raise ValueError(f"at={at!r} is neither 'centers' nor 'runs'")
    centers = 10 ** ((edges[:-1] + edges[1:]) / 2)[np.unique(bins)]
    places = centers if at == "centers" else values[lowest]
    return Envelope(table.iloc[lowest].assign(at=places), power_line(places, errors[lowest]))


@dataclass(frozen=True, eq=False)
class IsoFlop:
    """Per budget the parabola's minimum (`table`: budget, params, samples, loss, num_points, inside) and power laws.

    `params` and `samples` are lines of N_opt(C) and D_opt(C) through the budgets whose minimum lies inside their sizes.
    """

    table: pd.DataFrame
    params: PowerLine
    samples: PowerLine


def isoflop(
    points: Points,
    *,
    budget: str,
    params: str,
    y: str,
    flops_per_param_sample: float = FLOPS_PER_PARAM_SAMPLE,
) -> IsoFlop:
    """Approach 2: per budget a parabola of y in log N; its minimum is N_opt, and `D_opt = C / (k N_opt)`.

    `budget` is a column of nominal budgets: rows of one budget share its value. A budget needs 3 sizes; one whose
    parabola opens downwards or has its minimum outside its sizes is in the table with `inside` false and on no line.
    """
    table = points if isinstance(points, pd.DataFrame) else pd.DataFrame(dict(points))
    budgets, sizes, losses = (_positive(table, name) for name in (budget, params, y))
    rows = []
    for value in np.unique(budgets):
        log_n, loss = np.log(sizes[budgets == value]), losses[budgets == value]
        if len(np.unique(log_n)) < 3:
            continue
        middle = log_n.mean()
        curvature, slope, level = np.polyfit(log_n - middle, loss, 2)
        place = -slope / (2 * curvature) if curvature > 0 else np.nan
        size = float(np.exp(middle + place))
        inside = bool(curvature > 0 and log_n.min() <= middle + place <= log_n.max())
        lowest = level - slope**2 / (4 * curvature) if curvature > 0 else np.nan
        rows.append((value, size, value / (flops_per_param_sample * size), lowest, len(loss), inside))
    minima = pd.DataFrame(rows, columns=["budget", "params", "samples", "loss", "num_points", "inside"])
    kept = minima[minima["inside"]] if len(minima) else minima
    if len(kept) < 2:
        raise ValueError(f"only {len(kept)} values of {budget} have a minimum inside their sizes; 2 or more are needed")
    lines = [power_line(kept["budget"].to_numpy(), kept[name].to_numpy()) for name in ("params", "samples")]
    return IsoFlop(minima, *lines)


@dataclass(frozen=True)
class Allocation:
    """How to spend compute: `params` and `samples` (shape of the compute), the loss there, and the two exponents.

    `N_opt = params_scale * C^params_exponent` and likewise for D; exponents and scales are NaN where no closed form is.
    """

    compute: Array
    params: Array
    samples: Array
    loss: Array
    params_exponent: float
    samples_exponent: float
    params_scale: float
    samples_scale: float


def optimal_allocation(
    fit: LawFit,
    compute: Any,
    *,
    unique_images: float | None = None,
    flops_per_param_sample: float = FLOPS_PER_PARAM_SAMPLE,
) -> Allocation:
    """Approach 3: the N and D of lowest loss under `C = k N D`, of a `parametric` or `data_constrained` fit.

    Closed form (equation 4) for the parametric law: `N_opt = G (C/k)^(beta/(alpha+beta))`, `G = (alpha A / (beta
    B))^(1/(alpha+beta))`. The data-constrained law at `unique_images` is minimised numerically along the budget.
    """
    budget = np.asarray(compute, dtype=np.float64)
    if not np.all(budget > 0):
        raise ValueError(f"compute must be above 0, got {budget.min():g}")
    if fit.law not in ("parametric", "data_constrained"):
        raise ValueError(f"law {fit.law!r} has no N and D to choose; fit law 'parametric' or 'data_constrained'")
    alpha, beta = fit.params["alpha"], fit.params["beta"]
    if min(alpha, beta) <= 0:
        raise ValueError(f"alpha = {alpha:.3g}, beta = {beta:.3g}: without both above 0 there is no optimum")
    balance = float(_balance(fit.form.to_params(fit.result.theta[None]))[0])
    to_params, to_samples = beta / (alpha + beta), alpha / (alpha + beta)
    product = budget / flops_per_param_sample
    if fit.law == DataConstrained.name:
        if unique_images is None:
            raise ValueError("law 'data_constrained' needs unique_images: how many different samples there are")
        params = np.vectorize(lambda c: _constrained_optimum(fit, c, balance * c**to_params, unique_images))(product)
        loss = fit.predict(params, product / params, np.full_like(product, unique_images))
        return Allocation(budget, params, product / params, loss, *([float("nan")] * 4))
    params = balance * product**to_params
    scales = balance / flops_per_param_sample**to_params, 1 / balance / flops_per_param_sample**to_samples
    samples = product / params
    return Allocation(budget, params, samples, fit.predict(params, samples), to_params, to_samples, *scales)


def frontier(
    fit: LawFit, theta: Array, compute: Array, flops_per_param_sample: float = FLOPS_PER_PARAM_SAMPLE
) -> tuple[Array, Array, Array]:
    """N_opt, D_opt and y there on each budget (`n`) of a `parametric` fit's parameter vectors `theta` (`S x P`).

    Each is `S x n`; NaN for parameters without an optimum.
    """
    params = fit.form.to_params(theta)
    floor, scale_n, scale_d, alpha, beta = (params[:, index, None] for index in range(5))
    with np.errstate(all="ignore"):
        exponent = np.where(np.minimum(alpha, beta) > 0, beta / (alpha + beta), np.nan)
        size = _balance(params)[:, None] * (compute / flops_per_param_sample) ** exponent
        samples = compute / flops_per_param_sample / size
        return size, samples, floor + scale_n * size**-alpha + scale_d * samples**-beta


def frontier_compute(
    fit: LawFit, theta: Array, quality: float, flops_per_param_sample: float = FLOPS_PER_PARAM_SAMPLE
) -> Array:
    """The least compute that reaches `quality` by each parameter vector (`S x P`) of a `parametric` fit, `S`.

    Along the frontier `y - E` is a power of compute, with the exponent `-alpha beta / (alpha + beta)`. It is inf where
    E is not below `quality`, NaN without an optimum.
    """
    params = fit.form.to_params(theta)
    floor, alpha, beta = params[:, 0], params[:, 3], params[:, 4]
    at_one = frontier(fit, theta, np.array([flops_per_param_sample]), flops_per_param_sample)[2][:, 0]
    with np.errstate(all="ignore"):
        exponent = np.where(np.minimum(alpha, beta) > 0, (alpha + beta) / (alpha * beta), np.nan)
        compute = flops_per_param_sample * ((at_one - floor) / (quality - floor)) ** exponent
        return np.where(np.isfinite(exponent) & (floor >= quality), np.inf, compute)


def _balance(params: Array) -> Array:
    """G of equation 4 per parameter vector (`S x P`)."""
    with np.errstate(all="ignore"):
        alpha, beta = params[:, 3], params[:, 4]
        return (alpha * params[:, 1] / (beta * params[:, 2])) ** (1 / (alpha + beta))


def _constrained_optimum(fit: LawFit, product: float, unconstrained: float, unique_images: float) -> float:
    """N of lowest loss on `N D = product`; repeats shift it from `unconstrained` by less than e^10."""

    def loss(log_n: float) -> float:
        size = np.exp(log_n)
        return float(fit.predict(size, product / size, unique_images))

    grid = np.log(unconstrained) + np.linspace(-10.0, 10.0, 81)
    place = int(np.clip(np.argmin([loss(value) for value in grid]), 1, len(grid) - 2))
    found = minimize_scalar(loss, bounds=(grid[place - 1], grid[place + 1]), method="bounded", options={"xatol": 1e-10})
    return float(np.exp(found.x))


def _positive(table: pd.DataFrame, name: str) -> Array:
    if name not in table:
        raise ValueError(f"points have no column {name!r}; there are {', '.join(map(str, table.columns))}")
    values = table[name].to_numpy(dtype=np.float64)
    if not np.all(np.isfinite(values) & (values > 0)):
        wrong = int(np.flatnonzero(~(np.isfinite(values) & (values > 0)))[0])
        raise ValueError(f"row {table.index[wrong]}, column {name}: {values[wrong]!r} is not above 0")
    return values
