"""Error against training compute with the lower envelope (approach 1 of Hoffmann et al. 2022, arXiv 2203.15556)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from scaling_studies.axes import styled
from scaling_studies.compute import Envelope
from scaling_studies.figures.drawing import Drawing
from scaling_studies.figures.error_curves import compute_label, is_error, numbers, value_label
from scaling_studies.figures.method_styles import Style, method_styles
from scaling_studies.figures.panels import panels_drawing
from scaling_studies.figures.series import Line, Panel, Series, beyond_warning
from scaling_studies.statements import method_name, method_order

_BLACK = "#000000"
_GRID = 80


@styled
def error_vs_compute(
    points: pd.DataFrame,
    envelope: Envelope | None = None,
    *,
    compute: str = "flops",
    y: str = "error",
    by: str = "objective",
    until: float | None = None,
    styles: Mapping[str, Style] | None = None,
) -> Drawing:
    """y against the column `compute`, one marker per value of `by`, and the `envelope` (of `compute.envelope`).

    Crosses are the runs that make it. Its power law is drawn over the data and dashed on to `until`; the runs, and the
    compute at which the law takes their y, are listed in the JSON. `styles` are the colors and markers of the values of
    `by`, by default those of `method_styles`.
    """
    names = points[by].astype(str) if by in points else pd.Series("all", index=points.index)
    rows = numbers(points, compute, y)
    groups = sorted(names[rows.index].unique(), key=method_order)
    styles = styles or method_styles(groups)
    series = [_group(rows[names[rows.index] == name], name, styles[name], compute, y) for name in groups]
    if envelope is not None:
        series.append(_envelope_series(envelope, rows[compute], compute, y, until))
    panel = Panel("", compute, compute_label(points, compute), series)
    drawing = panels_drawing("error_vs_compute", [panel], y=y, y_label=value_label(y), percent=is_error(y))
    if envelope is not None:
        drawing.data["envelope"] = vars(envelope.line) | {"at": envelope.table["at"].tolist()}
    return drawing


def _group(rows: pd.DataFrame, name: str, style: Style, compute: str, y: str) -> Series:
    shown = rows.sort_values(compute)
    labels = [str(label) for label in shown.index]
    x, values = shown[compute].to_numpy(), shown[y].to_numpy()
    return Series(method_name(name), x, values, *style, names=labels, kind="cloud")


def _envelope_series(envelope: Envelope, measured: pd.Series, compute: str, y: str, until: float | None) -> Series:
    low, high = float(measured.min()), float(measured.max())
    end = high if until is None else max(until, high)
    grid = np.unique(np.concatenate([np.geomspace(low, end, _GRID), [high]]))
    factor = end / high
    warning = beyond_warning(compute, factor, 1.0) if factor > 1 + 1e-9 else None
    line = Line(grid, envelope.line.predict(grid), (low, high), warning=warning)
    label = f"envelope: {envelope.line.scale:.3g} C^{envelope.line.exponent:.3f}"
    x, values = (envelope.table[name].to_numpy(dtype=float) for name in (compute, y))
    names = [str(row) for row in envelope.table.index]
    return Series(label, x, values, _BLACK, "x", line=line, names=names, kind="lowest")
