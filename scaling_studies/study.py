"""A whole study fitted: every curve its points allow, every pair of methods compared, as one JSON document.

The document (`fits.json`, schema 3) holds everything that figures and report say about the laws. Numbers are finite or
null, where an end is open or nothing is known.

- `y` and `law`: what `fit_study` was asked for; `metric`: what y is;
- `curves`: per objective and preset over unique images, and over samples seen where they vary; per objective over
  encoder parameters. `status` is `fitted`, or `refused` with a `reason`. All have `objective, preset, x, held,
  samples_seen, num_encoder_params, runs, notes` (`held.unique_images` is null for runs from streams); fitted ones also
  `law` (name, title, formula, source), `params` (value, low, high, unit, meaning, undetermined), `chi2,
  degrees_of_freedom, birge_ratio, num_starts, num_starts_converged, num_samples, num_samples_converged, x_range`,
  `line` and `ahead` (the law inside the data and to twice its largest x, each with its band; `ahead.warning` unless
  that was validated), `residuals` (per run) and `extrapolation` (the test, or null: `variable` upward to `reach` times
  the fitted data was scored; `validated` is that factor, 1 where the law missed);
- `law_ranking`: per curve that was fitted, every law of errors, the best extrapolation first, with `reason` for those
  that could not be fitted or tested;
- `surface`: per objective the parametric law over encoder parameters and D (`x` says which), its residuals, a `grid` of
  values, and where D is samples seen the compute-optimal line `optimum`;
- `efficiency`: per pair of methods and kind of curve (x `compute`: of two surfaces over samples seen), at the lowest
  and the middle common error, or why not; `efficiency_curves`: the ratio over all common errors; `crossings`: where two
  curves cross;
- `differences`, `compute_differences`: per pair of methods the difference of their errors over runs at equal settings,
  and at equal training FLOPs (`differences`);
- `predictions`: errors and needs beyond and between the runs, each with a sentence and its warning;
- `references`, `shortfalls`, `missing_references`: raw pixels and untrained encoders, and who does not beat them;
- `warnings`: sentences that whoever shows these fits must show.

It carries no time and no path: equal points give equal bytes.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pandas as pd

from scaling_studies.curve_documents import ERROR_LAWS, FittedCurve, curve_document, fitted_curve, ranking_document
from scaling_studies.curves import curves_over_params, curves_over_samples_seen, curves_over_unique_images
from scaling_studies.differences import compute_difference_rows, difference_rows
from scaling_studies.extent import ScoredReach
from scaling_studies.intervals import NUM_SAMPLES
from scaling_studies.law_names import num_parameters
from scaling_studies.pair_documents import compute_rows, crossing_rows, efficiency_curve, efficiency_rows, pairs
from scaling_studies.points import METRICS, chosen, of_metric
from scaling_studies.references import missing_references, references, shortfalls
from scaling_studies.statements import method_order
from scaling_studies.surface_documents import (
    Surface,
    curve_predictions,
    fitted_surface,
    surface_document,
    surface_predictions,
)
from scaling_studies.tune_cells import cell_warnings

FITS_SCHEMA = 3
LAW = "m2"
Y = "error"
CONFIDENCE = 0.95


def fit_study(points: pd.DataFrame, law: str = LAW, y: str = Y) -> dict[str, Any]:
    """Fit all curves of a study with `law`; see the module's docstring for the document.

    `y` is the column of errors: `error`, that of the linear probe, or another of `points.METRICS`.

    Raises `ValueError` when no trained run has a value, when the probes were made on different data, and for a law that
    is none of errors in one variable.
    """
    if law not in ERROR_LAWS:
        raise ValueError(f"law {law!r} is none of {', '.join(ERROR_LAWS)}, the laws of errors in one variable")
    if y not in METRICS:
        raise ValueError(f"y {y!r} is none of {', '.join(METRICS)}, the columns of errors of a study")
    warnings = cell_warnings(points)
    points = of_metric(points, METRICS[y])
    if not (chosen(points)["kind"] == "trained").any():
        probe = "" if y == Y else f" with {y} (probe_data.kinds, arvis-scale probe --kind)"
        raise ValueError(f"no trained run has a result yet{probe}: nothing to fit; see column status of the points")
    fitted = _fitted_curves(points, law)
    two = pairs(fitted)
    documents = [curve_document(item) for item in fitted]
    surfaces = _surfaces(fitted)
    by_compute = [compute_rows(*pair) for pair in combinations(surfaces, 2)]
    return {
        "schema_version": FITS_SCHEMA,
        "metric": METRICS[y],
        "y": y,
        "law": law,
        "confidence": CONFIDENCE,
        "num_bootstrap": NUM_SAMPLES,
        "curves": documents,
        "law_ranking": [ranking_document(item.curve) for item in fitted if item.fit is not None],
        "surface": [surface_document(surface) for surface in surfaces],
        "efficiency": [
            *(row for pair in two for row in efficiency_rows(*pair)),
            *(row for rows, _ in by_compute for row in rows),
        ],
        "efficiency_curves": [
            *(row for pair in two for row in efficiency_curve(*pair)),
            *(row for _, rows in by_compute for row in rows),
        ],
        "crossings": [row for pair in two for row in crossing_rows(*pair)],
        "differences": difference_rows(points),
        "compute_differences": compute_difference_rows(points),
        "predictions": [
            *_predictions(fitted, documents),
            *(row for surface in surfaces for row in surface_predictions(surface)),
        ],
        "references": [vars(reference) for reference in references(points)],
        "shortfalls": [vars(found) | {"reference": found.reference.name} for found in shortfalls(points)],
        "missing_references": missing_references(points),
        "warnings": warnings,
    }


def _fitted_curves(points: pd.DataFrame, law: str) -> list[FittedCurve]:
    """Every curve with its fit: over images first, ours before its rivals."""
    num_needed = num_parameters(law) + 1
    curves = [
        *curves_over_unique_images(points, num_needed),
        *curves_over_samples_seen(points, num_needed),
        *curves_over_params(points, num_needed),
    ]
    curves.sort(key=lambda curve: (curve.preset is None, method_order(curve.objective)))
    return [fitted_curve(curve, law) for curve in curves]


def _surfaces(fitted: list[FittedCurve]) -> list[Surface]:
    """One surface per objective, ours before its rivals."""
    objectives = sorted({item.curve.objective for item in fitted}, key=method_order)
    return [fitted_surface([item for item in fitted if item.curve.objective == name]) for name in objectives]


def _predictions(fitted: list[FittedCurve], documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for item, document in zip(fitted, documents, strict=True):
        others = [first if second is item else second for first, second in pairs(fitted) if item in (first, second)]
        test = document.get("extrapolation")
        tested = None if test is None else ScoredReach(test["variable"], test["reach"], test["rmse"])
        rows += curve_predictions(item, others, tested)
    return rows
