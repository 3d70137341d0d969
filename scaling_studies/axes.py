"""How one panel is drawn: a curve with its points, error bars and band, reference lines, and readable logarithmic axes.

Colours are Okabe and Ito's (told apart with every common colour blindness); each method also has its own marker.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from scaling_studies.statements import count, method_name

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

STYLE: dict[RcKeyType, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    # Equal figures are equal bytes: ids in the SVG hang on this salt instead of a random one.
    "svg.hashsalt": "scaling_studies",
}
_COLOURS = {"xtra": "#0072B2", "aim": "#D55E00", "digpt": "#009E73", "igpt": "#CC79A7", "mae": "#E69F00"}
_MARKERS = {"xtra": "o", "aim": "s", "digpt": "D", "igpt": "^", "mae": "v"}
_DOTTED = (0, (1, 1.6))
GREY = "#666666"


def colour(objective: str) -> str:
    return _COLOURS.get(objective, "#000000")


def marker(objective: str) -> str:
    return _MARKERS.get(objective, "X")


def draw_curve(axes: Axes, curve: dict[str, Any], points: pd.DataFrame, *, aside: float = 0.0) -> None:
    """A curve of fits.json: its runs with binomial intervals, its fit with the bootstrap band over the measured range.

    A curve without a fit gets a thin dashed line from point to point instead, which claims no law. A run without any
    error, which a logarithmic axis cannot hold, is an arrow down from the upper end of its interval. The runs, not the
    line, stand `aside` typographic points to the right of their x, so that methods measured at one x do not hide.
    """
    rows = points[points["name"].isin(curve["runs"])].sort_values(curve["x"])
    x, y, low, high = (rows[name].to_numpy(dtype=float) for name in (curve["x"], "value", "value_low", "value_high"))
    tone = colour(curve["objective"])
    none = y == 0
    y, low = np.where(none, high, y), np.where(none, 0.7 * high, low)
    axes.errorbar(
        x,
        y,
        yerr=np.stack([y - low, high - y]),
        uplims=none,
        transform=axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans),
        fmt=marker(curve["objective"]),
        color=tone,
        markersize=4,
        markeredgecolor="white",
        markeredgewidth=0.5,
        elinewidth=0.9,
        zorder=3,
        label=method_name(curve["objective"]),
    )
    if curve["status"] == "fitted":
        line = curve["line"]
        axes.fill_between(line["x"], line["low"], line["high"], color=tone, alpha=0.15, linewidth=0)
        axes.plot(line["x"], line["y"], color=tone, linewidth=1.5)
    else:
        means = pd.Series(y).groupby(x).mean()
        axes.plot(means.index.to_numpy(dtype=float), means.to_numpy(), color=tone, linewidth=0.8, linestyle=(0, (3, 2)))


def draw_untrained_level(axes: Axes, objective: str, error: float) -> None:
    """Error of the one untrained encoder that a panel is about: a dotted level across it."""
    axes.axhline(error, color=colour(objective), linewidth=1.0, linestyle=_DOTTED, zorder=1)


def draw_untrained_sizes(axes: Axes, objective: str, x: Sequence[float], error: Sequence[float]) -> None:
    """Errors of untrained encoders of several sizes: open markers along a dotted line."""
    axes.plot(
        x,
        error,
        color=colour(objective),
        linewidth=1.0,
        linestyle=_DOTTED,
        marker=marker(objective),
        markersize=3.5,
        mfc="white",
    )


def draw_raw_pixels(axes: Axes, error: float) -> None:
    """The level of the probe on raw pixels, labelled on the line."""
    axes.axhline(error, color=GREY, linewidth=1.0, linestyle=(0, (5, 2)), zorder=1)
    axes.annotate(
        "raw pixels",
        (1.0, error),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=7,
        color=GREY,
        bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
        zorder=2,
    )


def log_error_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic y axis from `low` to `high` (errors as fractions), labelled in per cent at round numbers."""
    margin = (high / low) ** 0.06
    low, high = low / margin, min(1.0, high * margin)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator([tick / 100 for tick in round_ticks(100 * low, 100 * high)]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))


def log_count_axis(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis over `values`, labelled at the measured values themselves when they are few and apart."""
    axes.set_xscale("log")
    low, high = min(values), max(values)
    margin = max((high / low) ** 0.06, 1.05)
    axes.set_xlim(low / margin, high * margin)
    distinct = sorted(set(values))
    # Labels are about an eighth of a panel wide; closer ones would cover each other.
    apart = all(math.log(right / left) >= math.log(high / low) / 8 for left, right in pairwise(distinct))
    ticks = distinct if len(distinct) <= 6 and apart else round_ticks(low, high)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))


def round_ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high` for a logarithmic axis, at least four where the range holds so many."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 4:
            return inside
    return [float(tick) for tick in MaxNLocator(nbins=5).tick_values(low, high) if low <= tick <= high]
