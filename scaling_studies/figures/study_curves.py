"""Error curves of a study, from its points and fits.json: over unique images, samples seen and encoder parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from scaling_studies.axes import footnote, styled
from scaling_studies.figures.drawing import Drawing, NothingToDrawError
from scaling_studies.figures.error_curves import value_label
from scaling_studies.figures.method_styles import Style, study_styles
from scaling_studies.figures.panels import legend, line_warnings, panel_grid, panels_drawing
from scaling_studies.figures.series import Level, Line, Panel, Series, beyond_warning
from scaling_studies.statements import count, is_determined, method_name

Fits = dict[str, Any]
AXIS_LABELS = {
    "unique_images": "unique images in the pretraining set",
    "samples_seen": "samples seen, repeats counted",
    "params_encoder": "encoder parameters",
}
_TIMES = "\N{MULTIPLICATION SIGN}"
_EN_DASH = "\N{EN DASH}"


@styled
def error_vs_unique_images(points: pd.DataFrame, fits: Fits) -> Drawing:
    """Error against unique images, one panel per model size, smallest first."""
    return _per_preset(points, fits, "unique_images")


@styled
def error_vs_samples_seen(points: pd.DataFrame, fits: Fits) -> Drawing:
    """Error against samples seen, one panel per model size, smallest first."""
    return _per_preset(points, fits, "samples_seen")


@styled
def error_vs_params(points: pd.DataFrame, fits: Fits) -> Drawing:
    """Error against encoder parameters, at the largest pretraining set."""
    return _drawing("error_vs_params", [_params_panel(points, fits)], fits)


@styled
def cover(points: pd.DataFrame, fits: Fits) -> Drawing:
    """Both questions side by side: one model size over unique images, and all sizes at the largest set."""
    preset = headline_preset(fits)
    panels = [
        _preset_panel(points, fits, "unique_images", preset, ahead=False),
        _params_panel(points, fits, ahead=False),
    ]
    label = value_label(fits["metric"])
    figure, axes = panel_grid(panels, label, percent=True)
    arrow = _efficiency_arrow(axes[0], fits, preset)
    legend(figure, panels)
    warnings = line_warnings(panels)
    footnote(figure, [*_arrow_note(arrow), *warnings])
    data = {"y": "value", "y_label": label, "panels": [panel.document() for panel in panels], "arrow": arrow}
    return Drawing("cover", figure, data, warnings)


def headline_preset(fits: Fits) -> str:
    """The model size that sums a study up: the largest with a measured efficiency, else the largest of most methods."""
    measured = [row for row in fits["efficiency"] if row["x"] == "unique_images" and is_determined(row)]
    if measured:
        return str(max(measured, key=lambda row: row["num_encoder_params"])["preset"])
    curves = curves_over(fits, "unique_images")
    presets = _presets(curves)
    if not presets:
        raise NothingToDrawError("no trained run has a result over unique images")
    methods = {preset: sum(curve["preset"] == preset for curve in curves) for preset in presets}
    return max(presets, key=lambda preset: (methods[preset], presets.index(preset)))


def curves_over(fits: Fits, x: str) -> list[dict[str, Any]]:
    return [curve for curve in fits["curves"] if curve["x"] == x]


def curve_line(curve: dict[str, Any], *, ahead: bool) -> Line | None:
    """The line of a curve of fits.json, with `ahead` also beyond its data; `None` for one that was refused.

    A refused fit is never drawn.
    """
    if curve["status"] != "fitted":
        return None
    parts = [curve["line"], *([curve["ahead"]] if ahead and curve.get("ahead") else [])]
    x, y, low, high = (
        np.concatenate([np.array(part[name], dtype=float) for part in parts]) for name in ("x", "y", "low", "high")
    )
    warning = parts[-1].get("warning")
    if warning is not None:
        factor, validated = curve["ahead"]["factor"], (curve.get("extrapolation") or {}).get("validated", 1.0)
        warning = beyond_warning(curve["x"], factor, validated)
    return Line(x, y, tuple(curve["x_range"]), low, high, warning)


def curve_series(curve: dict[str, Any], points: pd.DataFrame, style: Style, *, ahead: bool = True) -> Series:
    rows = points[points["name"].isin(curve["runs"])].sort_values([curve["x"], "name"])
    x, y, low, high = (rows[name].to_numpy(dtype=float) for name in (curve["x"], "value", "value_low", "value_high"))
    low, high = np.where(np.isnan(low), y, low), np.where(np.isnan(high), y, high)
    label, line = method_name(curve["objective"]), curve_line(curve, ahead=ahead)
    return Series(label, x, y, *style, low, high, line, rows["name"].tolist())


def _per_preset(points: pd.DataFrame, fits: Fits, x: str) -> Drawing:
    presets = _presets(curves_over(fits, x))
    panels = [_preset_panel(points, fits, x, preset) for preset in presets]
    return _drawing(f"error_vs_{x}", panels, fits)


def _drawing(name: str, panels: list[Panel], fits: Fits) -> Drawing:
    return panels_drawing(name, panels, y="value", y_label=value_label(fits["metric"]), percent=True)


def _presets(curves: Iterable[dict[str, Any]]) -> list[str]:
    """Presets of the curves, smallest encoder first."""
    sizes: dict[str, int] = {}
    for curve in curves:
        sizes[curve["preset"]] = max(sizes.get(curve["preset"], 0), curve["num_encoder_params"])
    return sorted(sizes, key=lambda preset: (sizes[preset], preset))


def _preset_panel(points: pd.DataFrame, fits: Fits, x: str, preset: str, *, ahead: bool = True) -> Panel:
    curves = [curve for curve in curves_over(fits, x) if curve["preset"] == preset]
    styles = study_styles(points)
    levels = [
        Level("", reference["value"], styles[reference["objective"]].color, dotted=True)
        for reference in fits["references"]
        if reference["kind"] == "untrained" and reference["preset"] == preset
    ]
    size = _span([curve["num_encoder_params"] for curve in curves])
    title = f"{preset} ({size} encoder parameters)\n{_held(curves, x)}"
    series = [curve_series(curve, points, styles[curve["objective"]], ahead=ahead) for curve in curves]
    return Panel(title, x, AXIS_LABELS[x], series, levels + _raw(fits), aside=True)


def _params_panel(points: pd.DataFrame, fits: Fits, *, ahead: bool = True) -> Panel:
    curves = curves_over(fits, "params_encoder")
    if not curves:
        raise NothingToDrawError("no trained run has a result over encoder parameters")
    styles = study_styles(points)
    series = [curve_series(curve, points, styles[curve["objective"]], ahead=ahead) for curve in curves]
    for curve in curves:
        untrained = points[(points["kind"] == "untrained") & (points["objective"] == curve["objective"])]
        errors = untrained.groupby("params_encoder")["value"].mean().dropna()
        if len(errors):
            x, y = errors.index.to_numpy(dtype=float), errors.to_numpy(dtype=float)
            name = curve["objective"]
            series.append(Series(method_name(name), x, y, *styles[name], kind="references"))
    title = f"{_span([curve['held'].get('unique_images') for curve in curves])} unique images\n{_seen(curves)}"
    return Panel(title, "params_encoder", AXIS_LABELS["params_encoder"], series, _raw(fits))


def _raw(fits: Fits) -> list[Level]:
    return [Level(row["name"], row["value"]) for row in fits["references"] if row["kind"] == "raw_pixels"]


def _held(curves: list[dict[str, Any]], x: str) -> str:
    if x == "unique_images":
        return _seen(curves)
    return f"{_span([curve['held'].get('unique_images') for curve in curves])} unique images"


def _seen(curves: list[dict[str, Any]]) -> str:
    return f"{_span([end for curve in curves for end in curve['samples_seen']])} samples seen"


def _span(numbers: list[int | None]) -> str:
    known = [number for number in numbers if number is not None]
    if not known:
        return "an unknown number of"
    low, high = count(min(known)), count(max(known))
    return low if low == high else f"{low}{_EN_DASH}{high}"


def _arrow_note(arrow: dict[str, Any] | None) -> list[str]:
    """Which two of the methods the arrow compares."""
    if arrow is None:
        return []
    return [f"Arrow: unique images of {method_name(arrow['method_1'])} and {method_name(arrow['method_2'])}."]


def _efficiency_arrow(axes: Axes, fits: Fits, preset: str) -> dict[str, Any] | None:
    """The efficiency that the left panel of the cover is about: an arrow between the two curves at one error."""
    rows = [row for row in fits["efficiency"] if row["status"] == "measured" and row["preset"] == preset]
    row = next((row for row in rows if row["x"] == "unique_images" and row["at"] == "middle"), None)
    if row is None or not is_determined(row):
        return None
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
    return {key: row[key] for key in ("method_1", "method_2", "quality", "ratio", "low", "high", "x_1", "x_2")}
