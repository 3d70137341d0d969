"""Error against D with one curve per N, and against N with one curve per D, of a table of points and its fits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from scaling_studies.axes import MARKERS, ordered_colors, styled
from scaling_studies.figures.drawing import Drawing, NothingToDrawError
from scaling_studies.figures.panels import panels_drawing
from scaling_studies.figures.series import Line, Panel, Series, fitted_line
from scaling_studies.law_fit import LawFit
from scaling_studies.statements import METRIC_NAMES, count, method_name

LABELS = {
    "params": "parameters",
    "params_encoder": "encoder parameters",
    "params_total": "trained parameters",
    "unique_images": "unique images in the pretraining set",
    "samples_seen": "samples seen, repeats counted",
}
_FLOPS = ("flops", "train_flops")
_SHORT = {"unique_images": "unique images", "samples_seen": "samples seen"}
Fits = LawFit | Mapping[float, LawFit] | None


@styled
def error_vs_data(
    points: pd.DataFrame,
    fits: Fits = None,
    *,
    x: str = "samples_seen",
    y: str = "error",
    by: str = "params",
    until: float | None = None,
    validated: float = 1.0,
    published: Series | None = None,
) -> Drawing:
    """y against the data column `x`, one curve per value of `by`.

    `fits` is one law in two variables, drawn as a slice per value of `by`, or one law in x per value of `by`; values
    without a fit are drawn without a law. Lines go over the data of their own group, and dashed on to `until`.
    `validated` is the factor beyond the data that a test has covered. `published` are reference points of
    `published.reference_series` on the same axes.
    """
    return _drawing("error_vs_data", points, fits, x, y, by, until, validated, published)


@styled
def error_vs_params(
    points: pd.DataFrame,
    fits: Fits = None,
    *,
    x: str = "params",
    y: str = "error",
    by: str = "samples_seen",
    until: float | None = None,
    validated: float = 1.0,
    published: Series | None = None,
) -> Drawing:
    """y against the size column `x`, one curve per value of `by`; everything else as in `error_vs_data`."""
    return _drawing("error_vs_params", points, fits, x, y, by, until, validated, published)


def axis_label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def compute_label(points: pd.DataFrame, column: str) -> str:
    """The label of an axis of compute. A column that was renamed (`load_points`) is in the unit of its own name."""
    return f"training compute ({compute_unit(points, column)})" if column in _FLOPS else axis_label(column)


def compute_unit(points: pd.DataFrame, column: str) -> str:
    """FLOP, or what the table itself calls the column."""
    return str(points.attrs.get("columns", {}).get(column, "FLOP"))


def value_label(y: str) -> str:
    """The label of a y axis; errors are fractions and shown in per cent."""
    name = METRIC_NAMES.get(y, y.replace("_", " "))
    return f"{name} (%)" if is_error(y) else name


def is_error(y: str) -> bool:
    return "err" in y.lower()


def numbers(points: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The rows in which all of `names` are positive numbers. Raises when a column or every row is missing."""
    missing = [name for name in names if name not in points]
    if missing:
        raise ValueError(f"points have no column {missing[0]!r}; there are {', '.join(map(str, points.columns))}")
    chosen = points[list(names)].apply(pd.to_numeric, errors="coerce").astype(float)
    rows = chosen[np.isfinite(chosen).all(axis=1) & (chosen > 0).all(axis=1)]
    if rows.empty:
        raise NothingToDrawError(f"no row has {', '.join(names)} all above 0")
    return rows


def grouped(points: pd.DataFrame, fits: Fits, x: str, y: str, by: str, until: float | None, validated: float) -> Panel:
    """One panel: a series per value of `by`, smallest first and darkest."""
    rows = numbers(points, x, y, by)
    values = sorted(rows[by].unique())
    if len(values) > len(MARKERS):
        raise NothingToDrawError(f"{by} has {len(values)} values, {len(MARKERS)} curves can be told apart: choose rows")
    series = []
    for value, tone, shape in zip(values, ordered_colors(len(values)), MARKERS, strict=False):
        group = rows[rows[by] == value].sort_values(x)
        line = _line(fits, group, x, by, float(value), until, validated)
        names = [str(label) for label in group.index]
        label = count(value)
        series.append(Series(label, group[x].to_numpy(), group[y].to_numpy(), tone, shape, line=line, names=names))
    objectives = sorted(points.loc[rows.index, "objective"].dropna().unique()) if "objective" in points else []
    title = method_name(str(objectives[0])) if len(objectives) == 1 else ""
    return Panel(title, x, axis_label(x), series)


def _drawing(
    name: str,
    points: pd.DataFrame,
    fits: Fits,
    x: str,
    y: str,
    by: str,
    until: float | None,
    validated: float,
    published: Series | None,
) -> Drawing:
    panel = grouped(points, fits, x, y, by, until, validated)
    if published is not None:
        panel.series.append(published)
    title = _SHORT.get(by, axis_label(by))
    return panels_drawing(name, [panel], y=y, y_label=value_label(y), percent=is_error(y), legend_title=title)


def _line(
    fits: Fits, group: pd.DataFrame, x: str, by: str, value: float, until: float | None, validated: float
) -> Line | None:
    span = float(group[x].min()), float(group[x].max())
    if isinstance(fits, LawFit):
        if span[0] == span[1] and until is None:
            return None
        return fitted_line(fits, x, held={by: value}, data=span, until=until, validated=validated)
    fit = (fits or {}).get(value)
    return None if fit is None else fitted_line(fit, x, until=until, validated=validated)
