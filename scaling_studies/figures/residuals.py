"""Residuals of fits: measured over fitted, so that what a law misses shows as a pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import ScaledTranslation

from scaling_studies.axes import GRAY, PANEL, footnote, log_count_axis, styled
from scaling_studies.figures.drawing import Drawing, NothingToDrawError
from scaling_studies.figures.error_curves import axis_label
from scaling_studies.figures.method_styles import Style, place_style
from scaling_studies.figures.panels import place_legend
from scaling_studies.law_fit import LawFit
from scaling_studies.laws import Array

_ASIDE = 3.0  # typographic points between the groups at one x


@dataclass(frozen=True, eq=False)
class Residuals:
    """`measured` and `fitted` values at `x`, and the standard errors `sigma` of measured where known, all `n`."""

    label: str
    x: Array
    measured: Array
    fitted: Array
    sigma: Array | None = None
    names: list[str] = field(default_factory=list)

    @property
    def relative(self) -> Array:
        """`measured / fitted - 1`."""
        return self.measured / self.fitted - 1


def fit_residuals(label: str, fit: LawFit, x: str) -> Residuals:
    """The residuals of `fit` along its variable `x`."""
    if x not in fit.data.x_names:
        raise ValueError(f"x is {x!r}: law {fit.law!r} was fitted over {', '.join(fit.data.x_names)}")
    at = fit.data.x[fit.data.x_names.index(x)]
    names = [str(row) for row in fit.data.rows]
    return Residuals(label, at, fit.data.y, fit.predict(*fit.data.x), fit.data.sigma, names)


@styled
def residual_panels(
    panels: Mapping[str, Sequence[Residuals]],
    *,
    outliers: Sequence[str] = (),
    styles: Mapping[str, Style] | None = None,
) -> Drawing:
    """One panel per column of `panels`, relative residuals in per cent against it; rows in `outliers` get a ring.

    `styles` are the colors and markers by label, by default by the place of the label.
    """
    chosen = {name: [one for one in group if len(one.x)] for name, group in panels.items()}
    chosen = {name: group for name, group in chosen.items() if group}
    if not chosen:
        raise NothingToDrawError("there is no fitted curve to take residuals of")
    wide = 1.35 if len(chosen) == 1 else 1.0
    size = (PANEL[0] * wide * len(chosen), PANEL[1] * 1.0 + 0.35)
    figure = Figure(figsize=size, layout="constrained")
    every = np.atleast_1d(figure.subplots(1, len(chosen), sharey=True))
    labels = list(dict.fromkeys(one.label for group in chosen.values() for one in group))
    styles = styles or {label: place_style(place) for place, label in enumerate(labels)}
    flagged = set(outliers)
    for axes, (name, group) in zip(every, chosen.items(), strict=True):
        for one in group:
            place = labels.index(one.label)
            tone, shape = styles[one.label]
            bars = None if one.sigma is None else 1.96 * one.sigma / one.fitted
            style = {"fmt": shape, "color": tone, "markersize": 3.5, "elinewidth": 0.6, "mec": "white", "mew": 0.4}
            aside = _ASIDE * (place - (len(labels) - 1) / 2) if len(labels) <= 4 else 0.0
            moved = axes.transData + ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans)
            axes.errorbar(one.x, one.relative, yerr=bars, transform=moved, **style)
            ringed = np.array([label in flagged for label in one.names], dtype=bool)
            if ringed.any():
                axes.plot(one.x[ringed], one.relative[ringed], "o", ms=8, mfc="none", mec="black", mew=0.8)
        axes.axhline(0.0, color=GRAY, linewidth=1.0, zorder=1)
        log_count_axis(axes, [float(x) for one in group for x in one.x])
        axes.set_xlabel(axis_label(name))
    # Moved points do not count for matplotlib's own limits.
    reach = 1.08 * max(_reach(one) for group in chosen.values() for one in group)
    every[0].set_ylim(-reach, reach)
    every[0].set_ylabel("measured / fitted \N{MINUS SIGN} 1 (%)")
    every[0].yaxis.set_major_locator(MaxNLocator(nbins=6))
    every[0].yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{100 * value:.3g}".replace("-", "\N{MINUS SIGN}"))
    )
    place_legend(figure, [_handle(label, styles[label]) for label in labels])
    notes = [f"Rings: {len(flagged)} rows far off the law; they stay in the fit."] if flagged else []
    footnote(figure, notes)
    data = {name: [vars(one) | {"relative": one.relative} for one in group] for name, group in chosen.items()}
    return Drawing("residuals", figure, {"outliers": sorted(flagged), "panels": data}, notes)


def _reach(one: Residuals) -> float:
    """Largest absolute residual with its bar, at least 0.1%."""
    bars = 0.0 if one.sigma is None else 1.96 * one.sigma / one.fitted
    return max(1e-3, float(np.nanmax(np.abs(one.relative) + bars)))


def _handle(label: str, style: Style) -> Line2D:
    return Line2D([], [], color=style.color, marker=style.marker, markersize=4.5, linestyle="none", label=label)
