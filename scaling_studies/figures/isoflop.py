"""IsoFLOP parabolas and what their minima say (approach 2 of Hoffmann et al. 2022, arXiv 2203.15556, section 3.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scaling_studies.axes import (
    GRAY,
    MARKERS,
    PANEL,
    compact,
    footnote,
    log_count_axis,
    log_value_axis,
    ordered_colors,
    styled,
)
from scaling_studies.compute import IsoFlop, PowerLine
from scaling_studies.figures.drawing import Drawing, NothingToDrawError
from scaling_studies.figures.error_curves import axis_label, compute_unit, is_error, numbers, value_label

_GRID = 60


@styled
def isoflop_parabolas(
    points: pd.DataFrame, found: IsoFlop, *, budget: str = "budget", params: str = "params", y: str = "loss"
) -> Drawing:
    """Left: y against `params` per budget with its parabola in log N; right: the minima and N_opt(C) through them.

    `found` is `compute.isoflop` of the same columns. A budget whose parabola has no minimum inside its sizes gets no
    parabola, and a sentence says so.
    """
    rows = numbers(points, budget, params, y)
    budgets = sorted(rows[budget].unique())
    if len(budgets) > len(MARKERS):
        raise NothingToDrawError(f"{budget} has {len(budgets)} values, {len(MARKERS)} can be told apart: choose rows")
    figure = Figure(figsize=(PANEL[0] * 2.4, PANEL[1] * 1.1 + 0.35), layout="constrained")
    left, right = figure.subplots(1, 2)
    data, warnings, unit = [], [], compute_unit(points, budget)
    for value, tone, shape in zip(budgets, ordered_colors(len(budgets)), MARKERS, strict=False):
        group = rows[rows[budget] == value].sort_values(params)
        minimum = found.table[found.table["budget"] == value]
        inside = bool(len(minimum) and minimum["inside"].iloc[0])
        curve = _parabola(left, group, params, y, tone) if inside else None
        label = f"{compact(value)} {unit}"
        left.plot(group[params], group[y], linestyle="none", marker=shape, markersize=4, color=tone, label=label)
        if inside:
            place = minimum["params"].iloc[0], minimum["loss"].iloc[0]
            left.plot(*place, marker="*", markersize=8, color=tone, mec="black", mew=0.5, zorder=4)
            right.plot(value, place[0], marker=shape, markersize=5, color=tone, linestyle="none", zorder=3)
        else:
            warnings.append(f"{compact(value)} {unit}: no minimum inside its {len(group)} sizes, no parabola is drawn.")
        minima = minimum.to_dict("records")
        data.append({"budget": value, "params": group[params], "y": group[y], "parabola": curve, "minimum": minima})
    log_count_axis(left, rows[params].tolist())
    log_value_axis(left, float(rows[y].min()), float(rows[y].max()), percent=is_error(y))
    left.set(xlabel=axis_label(params), ylabel=value_label(y))
    _optimum_line(right, found.params, [value for value, one in zip(budgets, data, strict=True) if one["parabola"]])
    right.set_xlabel(f"compute budget ({unit})")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=min(len(budgets), 5))
    footnote(figure, warnings)
    data = [one | {"params": one["params"].tolist(), "y": one["y"].tolist()} for one in data]
    lines = {"params": vars(found.params), "samples": vars(found.samples)}
    return Drawing("isoflop", figure, {"y": y, "budgets": data, "lines": lines}, warnings)


def _parabola(axes: Axes, group: pd.DataFrame, params: str, y: str, tone: str) -> dict[str, Any]:
    """Draw the least-squares parabola of y in log N over the sizes of one budget; returns it."""
    log_n = np.log(group[params].to_numpy())
    middle = log_n.mean()
    x = np.linspace(log_n.min(), log_n.max(), _GRID)
    values = np.polyval(np.polyfit(log_n - middle, group[y].to_numpy(), 2), x - middle)
    axes.plot(np.exp(x), values, color=tone, linewidth=1.3)
    return {"params": np.exp(x), "y": values}


def _optimum_line(axes: Axes, line: PowerLine, budgets: list[float]) -> None:
    x = np.geomspace(min(budgets), max(budgets), _GRID)
    axes.plot(x, line.predict(x), color=GRAY, linewidth=1.3, zorder=2)
    half = line.exponent_high - line.exponent
    error = f" $\\pm$ {half:.2g} (95%)" if np.isfinite(half) else ""
    axes.set_title(f"$N_{{opt}} \\propto C^{{{line.exponent:.3f}}}${error}")
    log_count_axis(axes, budgets)
    log_count_axis(axes, line.predict(x).tolist(), "y")
    axes.grid(visible=True, axis="both")
    axes.set_ylabel("parameters at the minimum")
