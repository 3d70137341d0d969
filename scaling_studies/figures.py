"""The figures of a study, from its points and its fits.json: matplotlib, PNG at 200 dpi and SVG.

Each figure is a function of (points, fits) that returns a `Figure`; `save_figures` writes all of them. Equal inputs
give equal bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from arvis_scale.atomic import whole_file
from scaling_studies.axes import (
    GREY,
    STYLE,
    colour,
    draw_curve,
    draw_raw_pixels,
    draw_untrained_level,
    draw_untrained_sizes,
    log_count_axis,
    log_error_axis,
    marker,
)
from scaling_studies.statements import count, method_name, method_order

_TIMES = "\N{MULTIPLICATION SIGN}"
_EN_DASH = "\N{EN DASH}"
_PANEL = (2.9, 2.5)  # inches
_LEGEND_COLUMN = 1.25  # inches
_ASIDE = 2.5  # typographic points between the methods at one x


def error_vs_unique_images(points: pd.DataFrame, fits: dict[str, Any]) -> Figure:
    """Error against unique images, one panel per model size, smallest first."""
    curves = _curves(fits, "unique_images")
    presets = _presets(curves)
    columns = 2 if len(presets) in (2, 4) else min(3, len(presets))
    rows = math.ceil(len(presets) / columns)
    figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * rows + 0.35), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in panels[len(presets) :]:
        axes.set_visible(False)
    low, high = _error_limits(points, curves, fits["references"])
    for axes, preset in zip(panels, presets, strict=False):
        _unique_images_panel(axes, points, fits, preset)
        log_error_axis(axes, low, high)
    for axes in panels[::columns]:
        axes.set_ylabel("linear-probe error (%)")
    _legend(figure, curves, fits["references"])
    return figure


def error_vs_params(points: pd.DataFrame, fits: dict[str, Any]) -> Figure:
    """Error against encoder parameters, at the largest pretraining set."""
    figure = Figure(figsize=(_PANEL[0] * 1.35, _PANEL[1] * 1.1 + 0.35), layout="constrained")
    curves = _curves(fits, "params_encoder")
    _params_panel(figure.subplots(), points, fits)
    _legend(figure, curves, fits["references"])
    return figure


def cover(points: pd.DataFrame, fits: dict[str, Any]) -> Figure:
    """Both questions side by side: one model size over unique images, and all sizes at the largest set."""
    figure = Figure(figsize=(_PANEL[0] * 2.5, _PANEL[1] * 1.1 + 0.35), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    preset = headline_preset(fits)
    _unique_images_panel(left, points, fits, preset)
    _params_panel(right, points, fits)
    drawn = [curve for curve in _curves(fits, "unique_images") if curve["preset"] == preset]
    drawn += _curves(fits, "params_encoder")
    for axes in (left, right):
        log_error_axis(axes, *_error_limits(points, drawn, fits["references"]))
    right.set_ylabel("")
    left.set_ylabel("linear-probe error (%)")
    _efficiency_arrow(left, fits, preset)
    _legend(figure, drawn, fits["references"])
    return figure


FIGURES: dict[str, Callable[[pd.DataFrame, dict[str, Any]], Figure]] = {
    "error_vs_unique_images": error_vs_unique_images,
    "error_vs_params": error_vs_params,
    "cover": cover,
}


def save_figures(points: pd.DataFrame, fits: dict[str, Any], directory: Path) -> list[Path]:
    """Draw every figure and write it to `directory` as PNG and SVG; returns the paths."""
    paths = []
    for name, draw in FIGURES.items():
        with mpl.rc_context(STYLE):
            figure = draw(points, fits)
            for suffix in ("png", "svg"):
                path = directory / f"{name}.{suffix}"
                with whole_file(path) as temporary:
                    temporary.write_bytes(figure_bytes(figure, suffix))
                paths.append(path)
    return paths


def figure_bytes(figure: Figure, suffix: str) -> bytes:
    """The figure as a `png` or `svg` file; equal figures give equal bytes, since neither carries a date."""
    metadata: dict[str, Any] = {"Date": None, "Creator": None} if suffix == "svg" else {"Software": None}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, dpi=200, metadata=metadata, facecolor="white")
    return buffer.getvalue()


def headline_preset(fits: dict[str, Any]) -> str:
    """The model size that sums a study up: the largest with a measured efficiency, else the largest of most methods."""
    measured = [row for row in fits["efficiency"] if row["x"] == "unique_images" and _is_determined(row)]
    if measured:
        return str(max(measured, key=lambda row: row["num_encoder_params"])["preset"])
    curves = _curves(fits, "unique_images")
    methods = {preset: sum(curve["preset"] == preset for curve in curves) for preset in _presets(curves)}
    return max(_presets(curves), key=lambda preset: (methods[preset], _presets(curves).index(preset)))


def _is_determined(row: dict[str, Any]) -> bool:
    """Whether a ratio was measured and its interval ends somewhere."""
    return row["status"] == "measured" and not (row["low"] is None and row["high"] is None)


def _curves(fits: dict[str, Any], x: str) -> list[dict[str, Any]]:
    return [curve for curve in fits["curves"] if curve["x"] == x]


def _presets(curves: Iterable[dict[str, Any]]) -> list[str]:
    """Presets of the curves, smallest encoder first."""
    sizes: dict[str, int] = {}
    for curve in curves:
        sizes[curve["preset"]] = max(sizes.get(curve["preset"], 0), curve["num_encoder_params"])
    return sorted(sizes, key=lambda preset: (sizes[preset], preset))


def _unique_images_panel(axes: Axes, points: pd.DataFrame, fits: dict[str, Any], preset: str) -> None:
    curves = [curve for curve in _curves(fits, "unique_images") if curve["preset"] == preset]
    for index, curve in enumerate(curves):
        draw_curve(axes, curve, points, aside=_ASIDE * (index - (len(curves) - 1) / 2))
    for reference in fits["references"]:
        if reference["kind"] == "untrained" and reference["preset"] == preset:
            draw_untrained_level(axes, reference["objective"], reference["value"])
    _raw_pixels(axes, fits)
    every_x = [float(x) for curve in curves for x in points[points["name"].isin(curve["runs"])]["unique_images"]]
    log_count_axis(axes, every_x)
    params = max(curve["num_encoder_params"] for curve in curves)
    axes.set_title(f"{preset} ({count(params)} encoder parameters)\n{_samples_seen(curves)}")
    axes.set_xlabel("unique images in the pretraining set")


def _params_panel(axes: Axes, points: pd.DataFrame, fits: dict[str, Any]) -> None:
    curves = _curves(fits, "params_encoder")
    trained = points[points["name"].isin([run for curve in curves for run in curve["runs"]])]
    for curve in curves:
        draw_curve(axes, curve, points)
        untrained = points[(points["kind"] == "untrained") & (points["objective"] == curve["objective"])]
        errors = untrained.groupby("params_encoder")["value"].mean().dropna()
        if len(errors):
            draw_untrained_sizes(axes, curve["objective"], [float(size) for size in errors.index], list(errors))
    _raw_pixels(axes, fits)
    log_count_axis(axes, [float(size) for size in trained["params_encoder"]])
    log_error_axis(axes, *_error_limits(points, curves, fits["references"]))
    images = sorted({curve["held"]["unique_images"] for curve in curves})
    axes.set_title(f"{_span(images)} unique images\n{_samples_seen(curves)}")
    axes.set_xlabel("encoder parameters")
    axes.set_ylabel("linear-probe error (%)")


def _raw_pixels(axes: Axes, fits: dict[str, Any]) -> None:
    for reference in fits["references"]:
        if reference["kind"] == "raw_pixels":
            draw_raw_pixels(axes, reference["value"])


def _samples_seen(curves: list[dict[str, Any]]) -> str:
    return f"{_span([end for curve in curves for end in curve['samples_seen']])} samples seen"


def _span(numbers: list[int]) -> str:
    low, high = count(min(numbers)), count(max(numbers))
    return low if low == high else f"{low}{_EN_DASH}{high}"


def _error_limits(
    points: pd.DataFrame, curves: list[dict[str, Any]], references: list[dict[str, Any]]
) -> tuple[float, float]:
    """Lowest and highest error to show: every drawn run and reference, and every interval but its far end near zero."""
    rows = points[points["name"].isin([run for curve in curves for run in curve["runs"]])]
    levels = [float(reference["value"]) for reference in references if reference["value"] > 0]
    # An interval down to almost nothing would leave no room for the rest; an arrow stands for a run without any error.
    low = rows["value_low"].clip(lower=0.4 * rows["value"]).where(rows["value"] > 0, 0.6 * rows["value_high"])
    return min([float(low.min()), *levels]), max([float(rows["value_high"].max()), *levels])


def _efficiency_arrow(axes: Axes, fits: dict[str, Any], preset: str) -> None:
    """The efficiency that the left panel of the cover is about: an arrow between the two curves at one error."""
    rows = [row for row in fits["efficiency"] if row["status"] == "measured" and row["preset"] == preset]
    row = next((row for row in rows if row["x"] == "unique_images" and row["at"] == "middle"), None)
    if row is None or not _is_determined(row):
        return
    arrow = {"arrowstyle": "<|-|>", "color": "black", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7}
    axes.annotate("", (row["x_1"], row["quality"]), xytext=(row["x_2"], row["quality"]), arrowprops=arrow, zorder=4)
    low, high = (None if end is None else f"{end:.2g}" for end in (row["low"], row["high"]))
    interval = {
        (True, True): f"{low}{_EN_DASH}{high}",
        (True, False): f"at least {low}",
        (False, True): f"at most {high}",
    }[low is not None, high is not None]
    axes.annotate(
        f"{row['ratio']:.2g}{_TIMES} ({interval})",
        (max(row["x_1"], row["x_2"]), row["quality"]),
        xytext=(5, 2),
        textcoords="offset points",
        va="bottom",
        fontsize=7.5,
        bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.6},
        zorder=5,
    )


def _legend(figure: Figure, curves: list[dict[str, Any]], references: list[dict[str, Any]]) -> None:
    """One legend above the panels: the methods, and what the line styles mean."""
    handles = [
        Line2D([], [], color=colour(name), marker=marker(name), markersize=4.5, linewidth=1.5, label=method_name(name))
        for name in sorted({curve["objective"] for curve in curves}, key=method_order)
    ]
    if any(curve["status"] == "fitted" for curve in curves):
        handles.append(Line2D([], [], color=GREY, linewidth=6, alpha=0.25, label="fit, 95% band"))
    if any(curve["status"] == "refused" and len(curve["runs"]) > 1 for curve in curves):
        handles.append(Line2D([], [], color=GREY, linewidth=0.8, linestyle=(0, (3, 2)), label="no fit"))
    if any(reference["kind"] == "untrained" for reference in references):
        handles.append(Line2D([], [], color=GREY, linewidth=1, linestyle=(0, (1, 1.6)), label="untrained encoder"))
    columns = min(len(handles), int(figure.get_figwidth() / _LEGEND_COLUMN))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, columnspacing=1.4, handlelength=1.8)
