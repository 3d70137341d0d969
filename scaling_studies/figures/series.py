"""What a panel shows, as plain arrays: series of points, the lines of fits, levels; and how each is drawn.

A line is solid where there are data and dashed beyond them, where it is an extrapolation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from scaling_studies.axes import DASHED, DOTTED, GRAY
from scaling_studies.law_fit import LawFit
from scaling_studies.laws import Array

_LINE_POINTS = 120
_ROUNDING = 1e-9
_SAID = {"params_encoder": "encoder parameters", "params_total": "trained parameters", "params": "parameters"}


@dataclass(frozen=True, eq=False)
class Line:
    """A fitted law along x: `x`, `y` and its band `low`, `high` (all `n`); the data lie in `data` (smallest, largest).

    `warning` says why the stretch beyond the data is not to be trusted; `None` where that was validated.
    """

    x: Array
    y: Array
    data: tuple[float, float]
    low: Array | None = None
    high: Array | None = None
    warning: str | None = None

    @property
    def goes_beyond(self) -> bool:
        return bool(self.x[0] < self.data[0] * (1 - _ROUNDING) or self.x[-1] > self.data[1] * (1 + _ROUNDING))


@dataclass(frozen=True, eq=False)
class Series:
    """Points `x`, `y` (`n`) with the ends `low`, `high` of their intervals, and the line fitted to them.

    `kind` is `runs`, `cloud` (points that make no curve), `lowest` (crosses), `references` (open markers on a dotted
    line) or `published` (open markers, no line).
    """

    label: str
    x: Array
    y: Array
    color: str
    marker: str
    low: Array | None = None
    high: Array | None = None
    line: Line | None = None
    names: list[str] = field(default_factory=list)
    kind: str = "runs"

    def document(self) -> dict[str, Any]:
        """Every number of the series."""
        found: dict[str, Any] = {"label": self.label, "kind": self.kind, "names": self.names}
        found |= {"x": self.x, "y": self.y, "low": self.low, "high": self.high}
        return found | {"line": None if self.line is None else vars(self.line)}


@dataclass(frozen=True, eq=False)
class Level:
    """A horizontal reference line, labelled where `label` is not empty."""

    label: str
    y: float
    color: str = GRAY
    dotted: bool = False


@dataclass(frozen=True, eq=False)
class Panel:
    """One panel: its series over the column `x`, and levels across it.

    `aside` sets the runs of different series at one x apart sideways by a hair, so that none hides another.
    """

    title: str
    x: str
    x_label: str
    series: list[Series]
    levels: list[Level] = field(default_factory=list)
    aside: bool = False

    def document(self) -> dict[str, Any]:
        levels = [{"label": level.label, "y": level.y} for level in self.levels]
        series = [one.document() for one in self.series]
        return {"title": self.title, "x": self.x, "x_label": self.x_label, "series": series, "levels": levels}


def fitted_line(
    fit: LawFit,
    x: str,
    *,
    held: Mapping[str, float] | None = None,
    data: tuple[float, float] | None = None,
    until: float | None = None,
    since: float | None = None,
    validated: float = 1.0,
) -> Line:
    """The line of `fit` along its variable `x`, the others `held`, with its 95% band.

    It goes over `data` (by default the range of the fitted rows) and, where asked, on to `until` and back to `since`.
    `validated` is the factor beyond the data that a test has covered (see `trust.extrapolation_test`); further out the
    line carries a warning. Raises `ValueError` for a fit that did not converge: such a fit is never drawn.
    """
    if not fit.converged:
        raise ValueError(f"the fit of law {fit.law!r} did not converge: it is not drawn; look at its points")
    others = dict(held or {})
    missing = [name for name in fit.data.x_names if name != x and name not in others]
    if missing or x not in fit.data.x_names:
        have = ", ".join(fit.data.x_names)
        raise ValueError(f"law {fit.law!r} was fitted over {have}: give x as one of them and hold the others")
    low, high = data or fit.x_range[x]
    start, end = (low if since is None else min(low, since)), (high if until is None else max(high, until))
    grid = np.unique(np.concatenate([np.geomspace(start, end, _LINE_POINTS), [low, high]]))
    grid = grid[(grid >= start) & (grid <= end)]
    place = {name: np.full(len(grid), others[name]) if name != x else grid for name in fit.data.x_names}
    bottom, top = fit.band(place)
    factor = max(end / high, low / start)
    warning = None if factor <= validated * (1 + _ROUNDING) else beyond_warning(x, factor, validated)
    return Line(grid, fit.predict(place), (low, high), bottom, top, warning)


def beyond_warning(x: str, factor: float, validated: float) -> str:
    held = f"only a factor of {validated:.3g}" if validated > 1 else "no extrapolation"
    name = _SAID.get(x, x.replace("_", " "))
    return f"{name} drawn to {factor:.3g} times beyond the data (dashed): {held} was validated"


def draw_series(axes: Axes, series: Series, aside: float = 0.0) -> None:
    """Points with error bars and their line; points stand `aside` typographic points to the right of their x.

    A point at 0, which a logarithmic axis cannot hold, is an arrow down from the upper end of its interval. Runs
    without a fit get a thin dashed line from point to point instead, which claims no law.
    """
    if series.line is not None:
        _draw_line(axes, series.line, series.color)
    if not len(series.x):
        return
    if series.kind in ("references", "published"):
        open_style = {"mfc": "white", "mew": 0.9, "markersize": 4.0, "color": series.color, "marker": series.marker}
        joined = DOTTED if series.kind == "references" else "none"
        axes.plot(series.x, series.y, linestyle=joined, linewidth=1.0, zorder=2.5, **open_style)  # type: ignore[arg-type]
        return
    if series.kind == "lowest":
        axes.plot(series.x, series.y, series.marker, color=series.color, markersize=5, markeredgewidth=1.2, zorder=4)
        return
    y = series.y
    low, high = (y if end is None else end for end in (series.low, series.high))
    none = y == 0
    y, low = np.where(none, high, y), np.where(none, 0.7 * high, low)
    axes.errorbar(
        series.x,
        y,
        yerr=None if series.low is None else np.stack([y - low, high - y]),
        uplims=none if none.any() else False,
        transform=axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans),
        fmt=series.marker,
        color=series.color,
        markersize=4,
        markeredgecolor="white",
        markeredgewidth=0.5,
        elinewidth=0.9,
        zorder=3,
    )
    if series.kind == "runs" and series.line is None and len(np.unique(series.x)) > 1:
        means = pd.Series(y).groupby(series.x).mean()
        x = means.index.to_numpy(dtype=float)
        axes.plot(x, means.to_numpy(), color=series.color, linewidth=0.8, linestyle=(0, (3, 2)))


def draw_level(axes: Axes, level: Level) -> None:
    """A level across the panel; its label stands on the line, at the right."""
    style = DOTTED if level.dotted else (0, (5, 2))
    axes.axhline(level.y, color=level.color, linewidth=1.0, linestyle=style, zorder=1)
    if level.label:
        axes.annotate(
            level.label,
            (1.0, level.y),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=7,
            color=level.color,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
            zorder=2,
        )


def _draw_line(axes: Axes, line: Line, tone: str) -> None:
    inside = (line.x >= line.data[0] * (1 - _ROUNDING)) & (line.x <= line.data[1] * (1 + _ROUNDING))
    below, above = line.x <= line.data[0] * (1 + _ROUNDING), line.x >= line.data[1] * (1 - _ROUNDING)
    for part, style, width, shade in (
        (inside, "-", 1.5, 0.16),
        (below, DASHED, 1.1, 0.07),
        (above, DASHED, 1.1, 0.07),
    ):
        if part.sum() < 2:
            continue
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x[part], line.low[part], line.high[part], color=tone, alpha=shade, linewidth=0)
        axes.plot(line.x[part], line.y[part], color=tone, linewidth=width, linestyle=style)
