"""A whole study fitted: every curve its points allow, every pair of methods compared, as one JSON document.

The document (`fits.json`, schema 1) holds everything that figures and report say about the laws:

- `curves`: per objective and preset over unique images, per objective over encoder parameters; fitted, or refused with
  a reason;
- `efficiency`: per pair of methods and kind of curve, at the lowest and the middle common error, or why not;
- `references`, `shortfalls`, `missing_references`: raw pixels and untrained encoders, and who does not beat them.

It carries no time and no path: equal points give equal bytes.
"""

from __future__ import annotations

import zlib
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from scaling_studies.curves import Curve, curves_over_params, curves_over_unique_images
from scaling_studies.efficiency import common_errors, efficiency, error_range
from scaling_studies.fitting import CONFIDENCE, NUM_BOOTSTRAP, Fit, fit_curve, num_points_needed
from scaling_studies.laws import SaturatingPowerLaw
from scaling_studies.points import METRIC, measured
from scaling_studies.references import missing_references, references, shortfalls
from scaling_studies.statements import method_name, method_order, percent

FITS_SCHEMA = 1
LAW = SaturatingPowerLaw
_LINE_POINTS = 80


def fit_study(points: pd.DataFrame) -> dict[str, Any]:
    """Fit all curves of a study; see the module's docstring for the document.

    Raises `ValueError` when no trained run has a value, or when the probes were made on different data.
    """
    rows = measured(points)
    if not (rows["kind"] == "trained").any():
        raise ValueError("no trained run has a result yet: nothing to fit; see column status of the points")
    num_needed = num_points_needed(LAW)
    curves = curves_over_unique_images(points, num_needed) + curves_over_params(points, num_needed)
    curves.sort(key=lambda curve: (curve.preset is None, method_order(curve.objective)))
    fitted = [(curve, *_fit_or_reason(curve)) for curve in curves]
    return {
        "schema_version": FITS_SCHEMA,
        "metric": METRIC,
        "confidence": CONFIDENCE,
        "num_bootstrap": NUM_BOOTSTRAP,
        "curves": [_curve_document(curve, fit, reason) for curve, fit, reason in fitted],
        "efficiency": _efficiency_rows(fitted),
        "references": [vars(reference) for reference in references(points)],
        "shortfalls": [vars(found) | {"reference": found.reference.name} for found in shortfalls(points)],
        "missing_references": missing_references(points),
    }


def _fit_or_reason(curve: Curve) -> tuple[Fit | None, str | None]:
    """The curve's fit, or the sentence why it has none."""
    try:
        # The seed hangs on the curve's name alone: a curve added to a study leaves the others' intervals as they were.
        return fit_curve(LAW, *curve.arrays(), x_name=curve.x, seed=zlib.crc32(curve.label.encode())), None
    except ValueError as error:
        return None, str(error)


def _curve_document(curve: Curve, fit: Fit | None, reason: str | None) -> dict[str, Any]:
    common: dict[str, Any] = {
        "objective": curve.objective,
        "preset": curve.preset,
        "x": curve.x,
        "held": curve.held,
        "samples_seen": list(curve.samples_seen),
        "num_encoder_params": int(curve.points["params_encoder"].max()),
        "runs": list(curve.points["name"]),
        "notes": curve.notes,
    }
    if fit is None:
        return {"status": "refused", "reason": reason} | common
    caution = fit.caution()
    if caution:
        common["notes"] = [*curve.notes, caution]
    return {"status": "fitted", "reason": None} | common | _fit_document(fit)


def _fit_document(fit: Fit) -> dict[str, Any]:
    undetermined = fit.undetermined()
    params = {}
    for parameter, value in zip(fit.law.parameters, fit.params, strict=True):
        low, high = fit.interval(parameter.name)
        params[parameter.name] = {
            "value": float(value),
            "low": low,
            "high": high,
            "unit": parameter.unit,
            "meaning": parameter.meaning,
            "undetermined": undetermined.get(parameter.name),
        }
    line_x = np.geomspace(*fit.x_range, _LINE_POINTS)
    low_band, high_band = fit.band(line_x)
    return {
        "law": {
            "name": fit.law.name,
            "title": fit.law.title,
            "formula": fit.law.formula,
            "source": fit.law.source,
            "constants": fit.law.constants(),
        },
        "params": params,
        "chi2": fit.chi2,
        "degrees_of_freedom": fit.degrees_of_freedom,
        "birge_ratio": fit.birge_ratio,
        "num_starts": fit.num_starts,
        "num_starts_converged": fit.num_starts_converged,
        "num_samples_converged": fit.num_samples_converged,
        "x_range": list(fit.x_range),
        "line": {
            "x": line_x.tolist(),
            "y": fit.predict(line_x).tolist(),
            "low": low_band.tolist(),
            "high": high_band.tolist(),
        },
    }


def _efficiency_rows(fitted: list[tuple[Curve, Fit | None, str | None]]) -> list[dict[str, Any]]:
    """Every pair of methods on every kind of curve that both have: same axis, same preset."""
    rows = []
    for first, second in combinations(fitted, 2):
        pair = sorted((first, second), key=lambda item: method_order(item[0].objective))
        if first[0].objective != second[0].objective and (first[0].x, first[0].preset) == (
            second[0].x,
            second[0].preset,
        ):
            rows += _compare(*pair)
    return rows


def _compare(
    first: tuple[Curve, Fit | None, str | None], second: tuple[Curve, Fit | None, str | None]
) -> list[dict[str, Any]]:
    """Efficiency of the first curve's method over the second's at two errors, or one row that says why it has none."""
    (curve_1, fit_1, reason_1), (curve_2, fit_2, reason_2) = first, second
    names = [method_name(curve.objective) for curve in (curve_1, curve_2)]
    common: dict[str, Any] = {
        "method_1": curve_1.objective,
        "method_2": curve_2.objective,
        "x": curve_1.x,
        "preset": curve_1.preset,
        "num_encoder_params": int(curve_1.points["params_encoder"].max()),
        "notes": _differences(curve_1, curve_2),
    }
    if fit_1 is None or fit_2 is None:
        reasons = [f"{name}: {reason}" for name, reason in zip(names, (reason_1, reason_2), strict=True) if reason]
        return [common | {"status": "not fitted", "reason": "; ".join(reasons)}]
    errors = common_errors(fit_1, fit_2)
    if errors is None:
        (best_1, worst_1), (best_2, worst_2) = error_range(fit_1), error_range(fit_2)
        spans = [
            f"{name}'s fitted error goes from {percent(worst)} to {percent(best)}"
            for name, best, worst in ((names[0], best_1, worst_1), (names[1], best_2, worst_2))
        ]
        return [common | {"status": "not reached", "reason": f"not reached within the data: {', '.join(spans)}"}]
    rows = []
    for at, error in (("lowest", errors[0]), ("middle", sum(errors) / 2)):
        ratio = vars(efficiency(fit_1, fit_2, at=error))
        open_ends = {"low": ratio["low"] or None, "high": ratio["high"] if np.isfinite(ratio["high"]) else None}
        rows.append(common | {"status": "measured", "reason": None, "at": at} | ratio | open_ends)
    return rows


def _differences(curve_1: Curve, curve_2: Curve) -> list[str]:
    """What is not the same at the two curves although it should be, in sentences."""
    found = []
    if curve_1.samples_seen != curve_2.samples_seen:
        spans = [" to ".join(f"{end:,}" for end in sorted(set(curve.samples_seen))) for curve in (curve_1, curve_2)]
        found.append(f"samples_seen differ: {curve_1.objective} {spans[0]}, {curve_2.objective} {spans[1]}")
    images = [curve.held.get("unique_images") for curve in (curve_1, curve_2)]
    if images[0] != images[1]:
        found.append(f"unique_images differ: {curve_1.objective} {images[0]:,}, {curve_2.objective} {images[1]:,}")
    return found
