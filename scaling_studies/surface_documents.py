"""What fits.json says about a method over model size and data together: the parametric law, and what it predicts.

D is the number of unique images where the study varies it, otherwise that of samples seen: two different things.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scaling_studies.curve_documents import FittedCurve, law_document, params_document, residuals_document
from scaling_studies.curves import fit_table
from scaling_studies.extent import ScoredReach
from scaling_studies.law_fit import LawFit, fit_law
from scaling_studies.laws import Array
from scaling_studies.predictions import cheapest, needed, predict_quality
from scaling_studies.slices import COMPUTE, Slice
from scaling_studies.statements import prediction_statement

_SIZE = "params_encoder"
_FEWEST = 3  # different sizes, and different numbers of images
_GRID_POINTS = 25
_BUDGETS = 20


@dataclass(frozen=True, eq=False)
class Surface:
    """The parametric law of one objective, or the sentence why it has none.

    `per_sample` are the training FLOPs per encoder parameter and sample seen, the median run's; `None` where D is
    unique images, on whose number no cost hangs. `notes` say what a reader must know about the choice of runs.
    """

    objective: str
    fit: LawFit | None
    reason: str | None
    per_sample: float | None = None
    notes: tuple[str, ...] = ()


def fitted_surface(fitted: list[FittedCurve]) -> Surface:
    """The parametric law through all curves over images of one objective."""
    objective = fitted[0].curve.objective
    rows, samples = _rows(fitted)
    if rows is None:
        return Surface(objective, None, f"fewer than {_FEWEST} sizes at {_FEWEST} numbers of images each")
    options: dict[str, Any] = {"y": "error", "sigma": "sigma", "scale": "linear", "huber_delta": np.inf}
    seed = zlib.crc32(f"{objective} surface".encode())
    try:
        fit = fit_law(fit_table(rows, _SIZE, samples), "parametric", x=(_SIZE, samples), seed=seed, **options)
    except ValueError as error:
        return Surface(objective, None, str(error))
    if samples != "samples_seen":
        return Surface(objective, fit, None, notes=_notes(fitted, rows, samples))
    cost = rows["train_flops"].to_numpy(dtype=float) / (rows[_SIZE] * rows[samples]).to_numpy(dtype=float)
    return Surface(objective, fit, None, float(np.median(cost)), _notes(fitted, rows, samples))


def surface_document(surface: Surface) -> dict[str, Any]:
    """One element of `surface`."""
    fit, per_sample = surface.fit, surface.per_sample
    if fit is None:
        return {"objective": surface.objective, "status": "refused", "reason": surface.reason}
    size, samples = fit.data.x_names
    axes = [np.geomspace(*fit.x_range[name], _GRID_POINTS) for name in (size, samples)]
    return {
        "objective": surface.objective,
        "status": "fitted",
        "reason": None,
        "law": law_document(fit),
        "x": [size, samples],
        "params": params_document(fit),
        "x_range": {name: list(ends) for name, ends in fit.x_range.items()},
        "runs": fit.data.rows.tolist(),
        "residuals": residuals_document(fit),
        "grid": {
            "params": axes[0].tolist(),
            "samples": axes[1].tolist(),
            "value": fit.predict(axes[0][:, None], axes[1][None, :]).tolist(),
        },
        "flops_per_param_sample": per_sample,
        "num_samples": fit.samples().num_drawn,
        "num_samples_converged": len(fit.samples().theta),
        "optimum": None if per_sample is None else _optimum(fit, per_sample),
        "warnings": [*fit.warnings, *surface.notes],
    }


def surface_predictions(surface: Surface) -> list[dict[str, Any]]:
    """The cheapest run at the largest compute whose best N and D were both measured."""
    objective, fit, per_sample = surface.objective, surface.fit, surface.per_sample
    if fit is None or per_sample is None:
        return []
    try:
        largest = Slice(fit, COMPUTE, {}, per_sample).x_range[1]
        found = cheapest(fit, compute=largest, flops_per_param_sample=per_sample)
    except ValueError:  # no optimum, or none inside the data: nothing to predict
        return []
    place = {COMPUTE: largest, **found.quality.at}
    quality = found.quality
    return [_row("cheapest", objective, None, place, quality.value, quality.low, quality.high, quality.warning)]


def curve_predictions(item: FittedCurve, others: list[FittedCurve], tested: ScoredReach | None) -> list[dict[str, Any]]:
    """The error at twice the largest x, and what the best error of any other method takes by this one."""
    fit, curve = item.fit, item.curve
    if fit is None:
        return []
    ahead = predict_quality(fit, {curve.x: 2 * fit.x_range[curve.x][1]}, tested=tested)
    rows = [_row("quality", curve.objective, curve.preset, ahead.at, ahead.value, ahead.low, ahead.high, ahead.warning)]
    best = [other.fit.predict(other.fit.x_range[curve.x][1]) for other in others if other.fit is not None]
    if best:
        try:
            found = needed(fit, float(min(best)))
        except ValueError:  # not reached within the data: the efficiency rows say so
            return rows
        place = {curve.x: found.value}
        rows.append(
            _row("needed", curve.objective, curve.preset, place, float(min(best)), found.low, found.high, found.warning)
        )
    return rows


def _row(
    kind: str,
    objective: str,
    preset: str | None,
    at: dict[str, float],
    quality: float,
    low: float,
    high: float,
    warning: str | None,
) -> dict[str, Any]:
    row = {
        "objective": objective,
        "preset": preset,
        "kind": kind,
        "at": at,
        "quality": quality,
        "low": low if low > 0 else None,
        "high": high if np.isfinite(high) else None,
        "warning": warning,
    }
    return row | {"text": prediction_statement(row)}


def _rows(fitted: list[FittedCurve]) -> tuple[pd.DataFrame | None, str]:
    """The points of all curves over unique images, or else samples seen, and which of the two."""
    for name in ("unique_images", "samples_seen"):
        parts = [item.curve.points for item in fitted if item.curve.x == name]
        rows = pd.concat(parts).drop_duplicates("name") if parts else None
        if rows is not None and min(rows[name].nunique(), rows[_SIZE].nunique()) >= _FEWEST:
            return rows, name
    return None, ""


def _notes(fitted: list[FittedCurve], rows: pd.DataFrame, samples: str) -> tuple[str, ...]:
    """The notes of the surface's curves, each once, and that their runs were shown different numbers of samples."""
    presets: dict[str, list[str]] = {}
    for curve in (item.curve for item in fitted if item.curve.x == samples):
        for note in curve.notes:
            presets.setdefault(note, []).append(str(curve.preset))
    notes = [f"{', '.join(names)}: {note}" for note, names in presets.items()]
    low, high = int(rows["samples_seen"].min()), int(rows["samples_seen"].max())
    if samples != "samples_seen" and low < high:
        changes = f"samples_seen changes over this surface, from {low:,} to {high:,}"
        notes.append(f"{changes}: its fall is not due to encoder size and unique images alone")
    return tuple(notes)


def _optimum(fit: LawFit, per_sample: float) -> dict[str, list[float]] | None:
    """Along compute the best N and D, the error there and its band, inside the data; `None` where there is none."""
    along = Slice(fit, COMPUTE, {}, per_sample)
    try:
        budgets: Array = np.geomspace(*along.x_range, _BUDGETS)
    except ValueError:
        return None
    best = [cheapest(fit, compute=float(budget), flops_per_param_sample=per_sample) for budget in budgets]
    return {
        "compute": budgets.tolist(),
        "params": [point.params.value for point in best],
        "samples": [point.samples.value for point in best],
        "value": [point.quality.value for point in best],
        "low": [point.quality.low for point in best],
        "high": [point.quality.high for point in best],
    }
