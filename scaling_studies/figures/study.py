"""All figures of a study folder, from its points and its fits.json; those that its data do not hold are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scaling_studies.compute import envelope
from scaling_studies.figures.drawing import Drawing, NothingToDrawError
from scaling_studies.figures.efficiency_ratio import RatioCurve, efficiency_ratio
from scaling_studies.figures.error_vs_compute import error_vs_compute
from scaling_studies.figures.extrapolation import Check, extrapolation_checks
from scaling_studies.figures.iso_loss import Surface, iso_loss_contours
from scaling_studies.figures.method_styles import Style, study_styles
from scaling_studies.figures.residuals import Residuals, residual_panels
from scaling_studies.figures.study_curves import (
    Fits,
    cover,
    error_vs_params,
    error_vs_samples_seen,
    error_vs_unique_images,
)
from scaling_studies.laws import Array
from scaling_studies.points import chosen
from scaling_studies.statements import method_name, method_order

MOST_PAIRS = 6


def study_error_vs_compute(points: pd.DataFrame, fits: Fits) -> Drawing:
    """Error against training FLOPs of every trained run, with the envelope over five bins."""
    rows = _trained(points)
    rows = rows[(rows["train_flops"] > 0) & (rows["value"] > 0)].set_index("name", drop=False)
    if rows["train_flops"].nunique() < 2:
        raise NothingToDrawError("fewer than 2 different training budgets were measured")
    rows = rows.rename(columns={"value": fits["metric"]})
    try:
        lowest = envelope(rows, compute="train_flops", y=fits["metric"], at="runs")
    except ValueError as error:  # budgets so near each other that one bin holds them all
        raise NothingToDrawError(f"training budgets are too near each other for an envelope: {error}") from error
    return error_vs_compute(rows, lowest, compute="train_flops", y=fits["metric"], styles=study_styles(points))


def study_iso_loss(points: pd.DataFrame, fits: Fits) -> Drawing:
    """Contours of the surface of every objective that has one."""
    fitted = [one for one in fits.get("surface", []) if one["status"] == "fitted"]
    if not fitted:
        reasons = {str(one["reason"]) for one in fits.get("surface", [])}
        raise NothingToDrawError("; ".join(sorted(reasons)) or "no law in N and D was fitted")
    return iso_loss_contours([_surface(one) for one in fitted], y=fits["metric"])


def study_efficiency(x: str) -> Callable[[pd.DataFrame, Fits], Drawing]:
    """The figure of the efficiency ratio over the axis `x`, pairs of methods at each one's largest encoder.

    Of more than `MOST_PAIRS` pairs those with the first method are drawn.
    """

    def draw(points: pd.DataFrame, fits: Fits) -> Drawing:
        rows = _largest([row for row in fits.get("efficiency_curves", []) if row["x"] == x], fits)
        every, notes = len(rows), []
        if every > MOST_PAIRS:
            first = min((row["method_1"] for row in rows), key=method_order)
            rows = [row for row in rows if row["method_1"] == first]
            notes = [f"Of {every} pairs of methods the {len(rows)} with {method_name(first)}; fits.json has all."]
        curves, styles = [_ratio_curve(row) for row in rows], _pair_styles(rows, study_styles(points))
        return efficiency_ratio(curves, over=x, y=fits["metric"], styles=styles, notes=notes)

    return draw


def study_residuals(points: pd.DataFrame, fits: Fits) -> Drawing:
    """Residuals of every fitted curve, one panel per axis."""
    panels: dict[str, list[Residuals]] = {}
    for curve in fits["curves"]:
        if curve["status"] == "fitted" and curve.get("residuals"):
            label, rows = method_name(curve["objective"]), curve["residuals"]
            x, value, fitted, sigma = (_numbers(rows, name) for name in ("x", "value", "fitted", "sigma"))
            names = [str(row["run"]) for row in rows]
            panels.setdefault(curve["x"], []).append(Residuals(label, x, value, fitted, sigma, names))
    styles = {method_name(name): style for name, style in study_styles(points).items()}
    return residual_panels(panels, styles=styles)


def study_extrapolation(points: pd.DataFrame, fits: Fits) -> Drawing:
    """The law of every curve that could be tested on its upper half."""
    checks = []
    for curve in fits["curves"]:
        test = curve.get("extrapolation")
        if curve["status"] != "fitted" or not test:
            continue
        rows = curve["residuals"]
        line = _numbers([test["line"]], "x")[0], _numbers([test["line"]], "y")[0]
        name = curve["law"]["name"]
        title = method_name(curve["objective"]) + (f", {curve['preset']}" if curve["preset"] else "")
        values = _numbers(rows, "x"), _numbers(rows, "value")
        checks.append(Check(title, curve["x"], *values, test["cutoff"], {name: line}, {name: test["rmse"]}))
    return extrapolation_checks(checks, y=fits["metric"])


FIGURES: dict[str, Callable[[pd.DataFrame, Fits], Drawing]] = {
    "cover": cover,
    "error_vs_unique_images": error_vs_unique_images,
    "error_vs_samples_seen": error_vs_samples_seen,
    "error_vs_params": error_vs_params,
    "error_vs_compute": study_error_vs_compute,
    "iso_loss": study_iso_loss,
    "efficiency_over_unique_images": study_efficiency("unique_images"),
    "efficiency_over_samples_seen": study_efficiency("samples_seen"),
    "efficiency_over_params_encoder": study_efficiency("params_encoder"),
    "residuals": study_residuals,
    "extrapolation": study_extrapolation,
}


@dataclass(frozen=True, eq=False)
class StudyFigures:
    """The drawings of a study by name, and per figure that its data do not hold the reason."""

    drawings: dict[str, Drawing]
    left_out: dict[str, str] = field(default_factory=dict)


def draw_study(points: pd.DataFrame, fits: Fits) -> StudyFigures:
    """Draw every figure that the study's data hold."""
    drawings, left_out = {}, {}
    for name, draw in FIGURES.items():
        try:
            drawings[name] = draw(points, fits)
        except NothingToDrawError as error:
            left_out[name] = str(error)
    return StudyFigures(drawings, left_out)


def _trained(points: pd.DataFrame) -> pd.DataFrame:
    rows = chosen(points)
    return rows[rows["kind"] == "trained"]


def _numbers(rows: list[dict[str, Any]], name: str) -> Array:
    """Column `name` of `rows`; null is NaN."""
    return np.array([row[name] for row in rows], dtype=np.float64)


def _largest(rows: list[dict[str, Any]], fits: Fits) -> list[dict[str, Any]]:
    """Per pair of methods the curve of the largest encoder."""
    sizes = {curve["preset"]: curve["num_encoder_params"] for curve in fits["curves"]}
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: sizes.get(row["preset"], 0)):
        best[row["method_1"], row["method_2"]] = row
    return list(best.values())


def _pair_styles(rows: list[dict[str, Any]], styles: dict[str, Style]) -> list[Style]:
    """The second method's style where all pairs have one first method, else its color with the first one's marker."""
    if len({row["method_1"] for row in rows}) == 1:
        return [styles[row["method_2"]] for row in rows]
    return [Style(styles[row["method_2"]].color, styles[row["method_1"]].marker) for row in rows]


def _ratio_curve(row: dict[str, Any]) -> RatioCurve:
    label = f"{method_name(row['method_1'])} over {method_name(row['method_2'])}"
    label += f", {row['preset']}" if row["preset"] else ""
    return RatioCurve(label, *(_numbers([row], name)[0] for name in ("quality", "ratio", "low", "high")))


def _surface(one: dict[str, Any]) -> Surface:
    grid, optimum = one["grid"], one["optimum"]
    names = (one["x"][0], one["x"][1])
    runs = np.array([row["x"] for row in one["residuals"]], dtype=np.float64)
    params, samples, value = (np.array(grid[name], dtype=np.float64) for name in ("params", "samples", "value"))
    best = None if optimum is None else (np.array(optimum["params"]), np.array(optimum["samples"]))
    return Surface(method_name(one["objective"]), names, params, samples, value, runs[:, 0], runs[:, 1], best)
