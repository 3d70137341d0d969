"""Iso-loss contours in the plane of N and D, with the runs that they rest on and the compute-optimal line.

After Hoffmann et al. 2022 (arXiv 2203.15556), figure 4 left, with data in place of compute on the second axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from scaling_studies.axes import GRAY, PANEL, log_count_axis, ordered_colors, round_ticks, styled
from scaling_studies.compute import optimal_allocation
from scaling_studies.figures.drawing import Drawing, NothingToDrawError
from scaling_studies.figures.error_curves import axis_label, is_error
from scaling_studies.law_fit import LawFit
from scaling_studies.laws import Array

_GRID = 80
_LEVELS = 7
_COLUMNS = 4
_ORANGE = "#D55E00"


@dataclass(frozen=True, eq=False)
class Surface:
    """y of a fit on a grid: `params` `n`, `samples` `m`, `value` `n x m`; the runs at `run_params`, `run_samples`.

    `optimum` are the params and samples of lowest y along compute, inside the grid; `names` the two columns.
    """

    title: str
    names: tuple[str, str]
    params: Array
    samples: Array
    value: Array
    run_params: Array
    run_samples: Array
    optimum: tuple[Array, Array] | None = None


def fitted_surface(fit: LawFit, *, flops_per_param_sample: float = 6.0) -> Surface:
    """The surface of a `parametric` fit inside its data, with the line of `compute.optimal_allocation`."""
    if len(fit.data.x_names) != 2:
        raise NothingToDrawError(f"contours in N and D need a law in two variables, law {fit.law!r} has another number")
    if not fit.converged:
        raise ValueError(f"the fit of law {fit.law!r} did not converge: it is not drawn; look at its points")
    size, data = fit.data.x_names
    params, samples = (np.geomspace(*fit.x_range[name], _GRID) for name in (size, data))
    value = fit.predict(params[:, None], samples[None, :])
    budgets = np.geomspace(params[0] * samples[0], params[-1] * samples[-1], 200) * flops_per_param_sample
    try:
        best = optimal_allocation(fit, budgets, flops_per_param_sample=flops_per_param_sample)
    except ValueError:  # no optimum: contours are drawn all the same
        optimum = None
    else:
        inside = (best.params >= params[0]) & (best.params <= params[-1])
        inside &= (best.samples >= samples[0]) & (best.samples <= samples[-1])
        optimum = (best.params[inside], best.samples[inside]) if inside.sum() > 1 else None
    return Surface("", (size, data), params, samples, value, fit.data.x[0], fit.data.x[1], optimum)


@styled
def iso_loss_contours(surfaces: list[Surface], *, y: str = "loss") -> Drawing:
    """One panel per surface, four in a row: contours of y over `samples` (x) and `params` (y), inside the data."""
    if not surfaces:
        raise NothingToDrawError("no law in N and D was fitted")
    wide = 1.45 if len(surfaces) == 1 else 1.15
    columns, num_rows = min(_COLUMNS, len(surfaces)), math.ceil(len(surfaces) / _COLUMNS)
    size = (PANEL[0] * wide * columns, PANEL[1] * 1.2 * num_rows + 0.35)
    figure = Figure(figsize=size, layout="constrained")
    grid = list(figure.subplots(num_rows, columns, squeeze=False).ravel())
    for axes in grid[len(surfaces) :]:
        axes.set_visible(False)
    panels = []
    low = min(float(surface.value.min()) for surface in surfaces)
    high = max(float(surface.value.max()) for surface in surfaces)
    levels = [level for level in _levels(low, high, is_error(y)) if low < level < high]
    for axes, surface in zip(grid, surfaces, strict=False):
        _contours(axes, surface, levels, is_error(y))
        panels.append(_document(surface))
    handles = [Line2D([], [], color=GRAY, marker="o", markersize=3.5, linestyle="none", mec="white", label="runs")]
    if any(surface.optimum is not None for surface in surfaces):
        handles.append(Line2D([], [], color=_ORANGE, linewidth=1.6, label="compute-optimal"))
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return Drawing("iso_loss", figure, {"y": y, "levels": levels, "surfaces": panels})


def _contours(axes: Axes, surface: Surface, levels: list[float], percent: bool) -> None:
    tones = ordered_colors(len(levels))
    drawn = axes.contour(surface.samples, surface.params, surface.value, levels=levels, colors=tones, linewidths=1.1)
    log_count_axis(axes, surface.samples.tolist())
    log_count_axis(axes, surface.params.tolist(), "y")
    axes.clabel(drawn, fmt=lambda level: f"{100 * level:.3g}%" if percent else f"{level:.3g}", fontsize=6.5)
    axes.plot(surface.run_samples, surface.run_params, "o", color=GRAY, markersize=3.5, mec="white", mew=0.4, zorder=3)
    if surface.optimum is not None:
        axes.plot(surface.optimum[1], surface.optimum[0], color=_ORANGE, linewidth=1.6, zorder=2.5)
    axes.grid(visible=False)
    axes.set(title=surface.title, xlabel=axis_label(surface.names[1]), ylabel=axis_label(surface.names[0]))
    axes.yaxis.set_minor_locator(FixedLocator([]))


def _levels(low: float, high: float, percent: bool) -> list[float]:
    """Round values of y, about `_LEVELS` of them inside."""
    scale = 100 if percent else 1
    rounded = [tick / scale for tick in round_ticks(scale * low, scale * high)]
    if len([level for level in rounded if low < level < high]) >= 6:
        return rounded
    return sorted({float(f"{level:.2g}") for level in np.geomspace(low, high, _LEVELS + 2)[1:-1]})


def _document(surface: Surface) -> dict[str, object]:
    optimum = surface.optimum
    lines = None if optimum is None else {"params": optimum[0], "samples": optimum[1]}
    grid = {"params": surface.params, "samples": surface.samples, "value": surface.value}
    runs = {"params": surface.run_params, "samples": surface.run_samples}
    return {"title": surface.title, "columns": list(surface.names), "grid": grid, "runs": runs, "optimum": lines}
