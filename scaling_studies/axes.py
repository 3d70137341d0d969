"""The one style of all figures: rc settings, colors and markers, logarithmic axes with readable ticks, footnotes.

Colors of methods are Okabe and Ito's (told apart with every common color blindness), those of sizes are steps of
viridis from dark to light; every series also has its own marker, so that no figure needs color to be read.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from scaling_studies.statements import count

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
    # TrueType, which journals ask for and an editor can change.
    "pdf.fonttype": 42,
}
PANEL = (2.9, 2.5)  # inches
DOTTED = (0, (1, 1.6))
DASHED = (0, (4, 2))
GRAY = "#666666"
LIGHT = "#e6e6e6"
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h", "*")
_FOOTNOTE_CHARACTERS = 19  # per inch of figure, at its font size
_FOOTNOTE_LINE = 0.125  # inches

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def styled(draw: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorator: `draw` runs under `STYLE`, whatever the caller's rc settings are."""

    @wraps(draw)
    def with_style(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return with_style


def ordered_colors(number: int) -> list[str]:
    """Colors of `number` ordered groups, dark to light, all dark enough for thin lines on white."""
    shades = mpl.colormaps["viridis"](np.linspace(0.0, 0.83, max(number, 2)))
    return [to_hex(shade) for shade in shades[:number]]


def log_value_axis(axes: Axes, low: float, high: float, *, percent: bool) -> None:
    """A logarithmic y axis from `low` to `high`; fractions are labelled in per cent at round numbers."""
    margin, scale = (high / low) ** 0.06, 100 if percent else 1
    low, high = low / margin, min(1.0, high * margin) if percent else high * margin
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator([tick / scale for tick in round_ticks(scale * low, scale * high)]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{scale * value:.3g}"))


def log_count_axis(axes: Axes, values: Sequence[float], which: str = "x", *, ends: Sequence[float] = ()) -> None:
    """A logarithmic axis over `values` and the `ends` of lines, labelled at the values when they are few and apart."""
    low, high = min([*values, *ends]), max([*values, *ends])
    margin = max((high / low) ** 0.06, 1.05)
    distinct = sorted(set(values))
    # Labels are about an eighth of a panel wide; closer ones would cover each other.
    apart = all(math.log(right / left) >= math.log(high / low) / 8 for left, right in pairwise(distinct))
    ticks = distinct if len(distinct) <= 6 and apart else thinned(round_ticks(low / margin, high * margin))
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low / margin, high * margin)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def compact(value: float) -> str:
    """A count for a tick: `30M`; beyond 1000T, where FLOPs are, a power of ten."""
    if value < 9.995e14:
        return count(value)
    exponent = math.floor(math.log10(value) + 1e-9)
    digits = f"{value / 10**exponent:.2g}"
    return f"$10^{{{exponent}}}$" if digits == "1" else f"${digits}{{\\cdot}}10^{{{exponent}}}$"


def thinned(ticks: list[float]) -> list[float]:
    """At most seven of the ticks, evenly."""
    return ticks[:: max(1, math.ceil(len(ticks) / 7))]


def round_ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high` for a logarithmic axis, at least four where the range holds so many."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 4:
            return inside
    return [float(tick) for tick in MaxNLocator(nbins=5).tick_values(low, high) if low <= tick <= high]


def footnote(figure: Figure, sentences: Sequence[str]) -> None:
    """Write `sentences` small under the panels, which keep their height: what a reader must know travels along."""
    if not sentences:
        return
    width = int(_FOOTNOTE_CHARACTERS * figure.get_figwidth())
    text = "\n".join(line for sentence in sentences for line in textwrap.wrap(sentence, width))
    figure.set_figheight(figure.get_figheight() + _FOOTNOTE_LINE * (text.count("\n") + 1))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=6.5, color=GRAY)
