"""A grid of panels with one y axis, one legend above and one footnote below: the frame of most figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from scaling_studies.axes import DASHED, DOTTED, GRAY, PANEL, footnote, log_count_axis, log_value_axis
from scaling_studies.figures.drawing import Drawing, NothingToDrawError
from scaling_studies.figures.series import Panel, Series, draw_level, draw_series

_HANDLE = 0.38  # inches of a legend entry beside its text
_CHARACTER = 0.05  # inches
_LEGEND_ROW = 0.15  # inches
_ASIDE = 2.5  # typographic points between the runs at one x, less where there are many
_WIDEST_ASIDE = 14.0  # typographic points from the first to the last of them: they must not leave the axes


def panel_grid(panels: Sequence[Panel], y_label: str, *, percent: bool) -> tuple[Figure, list[Axes]]:
    """The figure with every panel drawn on a common logarithmic y axis; returns it and its axes, without a legend."""
    if not panels:
        raise NothingToDrawError("there is no measured curve to draw")
    number = len(panels)
    columns = 2 if number in (2, 4) else min(3, number)
    rows = math.ceil(number / columns)
    wide = 1.35 if number == 1 else 1.0
    size = (PANEL[0] * columns * wide, PANEL[1] * rows * (1.1 if rows == 1 else 1.0) + 0.35)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(hspace=0.06 if rows > 1 else 0.0))
    grid = list(figure.subplots(rows, columns, squeeze=False, sharey=True).ravel())
    for axes in grid[number:]:
        axes.set_visible(False)
    low, high = _limits(panels)
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel)
        log_value_axis(axes, low, high, percent=percent)
    for axes in grid[::columns]:
        axes.set_ylabel(y_label)
    return figure, grid[:number]


def panels_drawing(
    name: str, panels: Sequence[Panel], *, y: str, y_label: str, percent: bool, legend_title: str | None = None
) -> Drawing:
    """The grid as a drawing: with its legend, its warnings as a footnote, and every number in `data`."""
    figure, _ = panel_grid(panels, y_label, percent=percent)
    warnings = line_warnings(panels)
    legend(figure, panels, legend_title)
    footnote(figure, warnings)
    data = {"y": y, "y_label": y_label, "panels": [panel.document() for panel in panels]}
    return Drawing(name, figure, data, warnings)


def line_warnings(panels: Sequence[Panel]) -> list[str]:
    """One sentence per different warning of the lines, with the series that it is about."""
    by_text: dict[str, list[str]] = {}
    for panel in panels:
        for series in panel.series:
            if series.line is not None and series.line.goes_beyond and series.line.warning:
                labels = by_text.setdefault(series.line.warning, [])
                labels += [series.label] if series.label not in labels else []
    return [f"{', '.join(labels)}: {text}." for text, labels in by_text.items()]


def legend(figure: Figure, panels: Sequence[Panel], title: str | None = None) -> None:
    """One legend above the panels: the series, and what the line styles mean."""
    series: dict[tuple[str, str], Series] = {}
    for one in (one for panel in panels for one in panel.series):
        # A series with a line explains itself better than one without.
        if (one.label, one.kind) not in series or one.line is not None:
            series[one.label, one.kind] = one
    handles = [_handle(one) for one in series.values() if one.kind != "references"]
    lines = [one.line for panel in panels for one in panel.series if one.line is not None]
    every = [one for panel in panels for one in panel.series]
    if any(line.low is not None for line in lines):
        handles.append(Line2D([], [], color=GRAY, linewidth=6, alpha=0.25, label="fit, 95% band"))
    if any(line.goes_beyond for line in lines):
        handles.append(Line2D([], [], color=GRAY, linewidth=1.1, linestyle=DASHED, label="beyond the data"))
    if any(one.kind == "runs" and one.line is None and len(np.unique(one.x)) > 1 for one in every):
        handles.append(Line2D([], [], color=GRAY, linewidth=0.8, linestyle=(0, (3, 2)), label="no fit"))
    dotted = any(level.dotted for panel in panels for level in panel.levels)
    if dotted or any(one.kind == "references" for one in every):
        handles.append(Line2D([], [], color=GRAY, linewidth=1, linestyle=DOTTED, label="untrained encoder"))
    place_legend(figure, handles, title)


def place_legend(figure: Figure, handles: Sequence[Line2D], title: str | None = None) -> None:
    """The legend above the panels, in as many columns as the figure is wide enough for."""
    widest = max(len(str(handle.get_label())) for handle in handles)
    whole = sum(_HANDLE + _CHARACTER * len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(figure.get_figwidth() / (_HANDLE + _CHARACTER * widest))))
    columns = len(handles) if whole <= 0.94 * figure.get_figwidth() else columns
    num_rows = math.ceil(len(handles) / columns) + (title is not None)
    figure.set_figheight(figure.get_figheight() + _LEGEND_ROW * (num_rows - 1))
    figure.legend(
        handles=list(handles),
        title=title,
        title_fontsize=7.5,
        loc="outside upper center",
        ncols=columns,
        columnspacing=1.4,
        handlelength=1.8,
    )


def _handle(series: Series) -> Line2D:
    published = series.kind == "published"
    return Line2D(
        [],
        [],
        color=series.color,
        marker=series.marker,
        markersize=4.5,
        linewidth=1.5,
        linestyle="none" if published or series.line is None else "-",
        mfc="white" if published else series.color,
        mec=series.color if published or series.kind == "lowest" else "white",
        mew=0.9 if published or series.kind == "lowest" else 0.5,
        label=series.label,
    )


def _draw(axes: Axes, panel: Panel) -> None:
    runs = [series for series in panel.series if series.kind == "runs"]
    step = min(_ASIDE, _WIDEST_ASIDE / max(1, len(runs) - 1))
    for series in panel.series:
        place = runs.index(series) - (len(runs) - 1) / 2 if panel.aside and series in runs else 0.0
        draw_series(axes, series, step * place)
    for level in panel.levels:
        draw_level(axes, level)
    values = [float(x) for series in panel.series for x in series.x]
    ends = [
        float(x) for series in panel.series if series.line is not None for x in (series.line.x[0], series.line.x[-1])
    ]
    log_count_axis(axes, values, ends=ends)
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x_label)


def _limits(panels: Sequence[Panel]) -> tuple[float, float]:
    """Lowest and highest y to show: every point, level and line, and every interval but its far end near zero."""
    lows: list[float] = []
    highs: list[float] = []
    for panel in panels:
        levels = [level.y for level in panel.levels if level.y > 0]
        lows, highs = lows + levels, highs + levels
        for series in panel.series:
            low, high = (series.y if end is None else end for end in (series.low, series.high))
            # An interval down to almost nothing would leave no room for the rest; an arrow stands for a point at 0.
            lows += np.where(series.y > 0, np.maximum(low, 0.4 * series.y), 0.6 * high).tolist()
            highs += np.asarray(high).tolist()
            if series.line is not None:
                lows.append(float(np.min(series.line.y)))
                highs.append(float(np.max(series.line.y)))
    return min(value for value in lows if value > 0), max(highs)
