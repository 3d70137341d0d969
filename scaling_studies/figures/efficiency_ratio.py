"""How many times less one method needs than another, over all qualities that both reach, with the 95% band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from scaling_studies.axes import GRAY, PANEL, footnote, round_ticks, styled, thinned
from scaling_studies.figures.drawing import Drawing, NothingToDrawError
from scaling_studies.figures.error_curves import is_error, value_label
from scaling_studies.figures.method_styles import Style, place_style
from scaling_studies.figures.panels import place_legend
from scaling_studies.laws import Array
from scaling_studies.statements import UNITS

_TIMES = "\N{MULTIPLICATION SIGN}"
# An end of the band that is open, or hundreds of times off, is cut here: it must not flatten the curves.
_WIDEST = 30.0


@dataclass(frozen=True, eq=False)
class RatioCurve:
    """`ratio` with its ends `low` and `high` over `quality`, all `n`; NaN where not reached, or for an open end."""

    label: str
    quality: Array
    ratio: Array
    low: Array
    high: Array


def ratio_curve(label: str, table: pd.DataFrame) -> RatioCurve:
    """The curve of a table of `scaling_studies.efficiency(a, b)`; open ends (0, inf) become NaN."""
    columns = (table[name].to_numpy(dtype=float) for name in ("quality", "ratio", "low", "high"))
    quality, ratio, low, high = columns
    return RatioCurve(label, quality, ratio, np.where(low > 0, low, np.nan), np.where(np.isinf(high), np.nan, high))


@styled
def efficiency_ratio(
    curves: Sequence[RatioCurve],
    *,
    over: str,
    y: str = "error",
    styles: Sequence[Style] | None = None,
    notes: Sequence[str] = (),
) -> Drawing:
    """Ratio of `over` needed by the second method to that of the first, against y; better qualities stand right.

    Above 1 the first method needs less. Where an end of the interval is open, the band reaches the edge of the axes,
    and a sentence says so. `styles` are the colors and markers of the curves, by default by their places; `notes` are
    further sentences under the picture.
    """
    styles = styles or [place_style(place) for place in range(len(curves))]
    drawn = [(style, curve) for style, curve in zip(styles, curves, strict=True) if np.isfinite(curve.ratio).any()]
    if not drawn:
        raise NothingToDrawError(f"no two methods reach a common quality within the data over {UNITS.get(over, over)}")
    figure = Figure(figsize=(PANEL[0] * 1.45, PANEL[1] * 1.1 + 0.35), layout="constrained")
    axes = figure.subplots()
    known = np.concatenate([curve.ratio[np.isfinite(curve.ratio)] for _, curve in drawn])
    low, high = _limits([curve for _, curve in drawn], known)
    handles: list[Line2D] = []
    for (tone, shape), curve in drawn:
        bottom, top = (np.where(np.isnan(end), edge, end) for end, edge in ((curve.low, low), (curve.high, high)))
        axes.fill_between(curve.quality, bottom, top, color=tone, alpha=0.16, linewidth=0)
        step = max(1, len(curve.quality) // 6)
        style = {"color": tone, "linewidth": 1.5, "marker": shape, "markersize": 3.5}
        axes.plot(curve.quality, curve.ratio, markevery=step, **style)  # type: ignore[arg-type]
        handles.append(Line2D([], [], label=curve.label, **style))  # type: ignore[arg-type]
    axes.axhline(1.0, color=GRAY, linewidth=1.0, linestyle=(0, (5, 2)), zorder=1)
    _scales(figure, low, high, np.concatenate([curve.quality for _, curve in drawn]), over, y)
    handles.append(Line2D([], [], color=GRAY, linewidth=6, alpha=0.25, label="95% band"))
    place_legend(figure, handles)
    open_ends = [curve.label for _, curve in drawn if np.isnan(curve.low).any() or np.isnan(curve.high).any()]
    warnings = [f"{'; '.join(open_ends)}: where the band reaches the edge its interval is open."] if open_ends else []
    footnote(figure, [*notes, *warnings])
    data = {"over": over, "y": y, "curves": [vars(curve) for curve in curves]}
    return Drawing(f"efficiency_over_{over}", figure, data, warnings)


def _limits(curves: list[RatioCurve], known: Array) -> tuple[float, float]:
    ends = np.concatenate([np.concatenate([curve.low, curve.high]) for curve in curves])
    ends = ends[np.isfinite(ends)]
    least, most = float(known.min()), float(known.max())
    low = max(min([least, *ends]), least / _WIDEST)
    high = min(max([most, *ends]), most * _WIDEST)
    return min(low, 1.0) / 1.15, max(high, 1.0) * 1.15


def _scales(figure: Figure, low: float, high: float, qualities: Array, over: str, y: str) -> None:
    axes, scale = figure.axes[0], 100 if is_error(y) else 1
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator(thinned(sorted({1.0, *round_ticks(low, high)}))))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}{_TIMES}"))
    axes.set_xscale("log")
    axes.set_xlim(float(qualities.max()) * 1.01, float(qualities.min()) / 1.01)
    ticks = thinned(round_ticks(scale * float(qualities.min()), scale * float(qualities.max())))
    axes.xaxis.set_major_locator(FixedLocator([tick / scale for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{scale * value:.3g}"))
    axes.set_xlabel(f"{value_label(y)}, better to the right")
    axes.set_ylabel(f"{UNITS.get(over, over.replace('_', ' '))}: second needs / first needs")
