"""What fits.json says about one curve: its law with intervals, its residuals, how the law goes on, and which law ranks
first.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling_studies.curves import Curve
from scaling_studies.extent import ScoredReach
from scaling_studies.law_fit import LawFit, fit_law
from scaling_studies.trust import Extrapolation, extrapolation_test, rank_laws

# The laws of errors in one variable, all of which are ranked.
ERROR_LAWS = ("m1", "m2", "m3", "m4", "zhai", "bnsl")
# How far beyond its largest x a curve is drawn on.
AHEAD = 2.0
_LINE_POINTS = 80
_AHEAD_POINTS = 40


@dataclass(frozen=True, eq=False)
class FittedCurve:
    """A curve with its fit, or the sentence why it has none."""

    curve: Curve
    fit: LawFit | None
    reason: str | None


def fit_options(curve: Curve) -> dict[str, Any]:
    """How the law of a curve is fitted: to the errors themselves, weighted by their binomial standard errors.

    The seed hangs on the curve's name alone: a curve added to a study leaves the others' intervals as they were.
    """
    return {"x": curve.x, "y": "error", "sigma": "sigma", "scale": "linear", "seed": zlib.crc32(curve.label.encode())}


def fitted_curve(curve: Curve, law: str) -> FittedCurve:
    """The curve with its fit, or why there is none."""
    try:
        return FittedCurve(curve, fit_law(curve.table(), law, **fit_options(curve)), None)
    except ValueError as error:
        return FittedCurve(curve, None, str(error))


def curve_document(fitted: FittedCurve) -> dict[str, Any]:
    """One element of `curves`."""
    curve, fit = fitted.curve, fitted.fit
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
        return {"status": "refused", "reason": fitted.reason} | common
    sentences = set(fit.undetermined().values())
    common["notes"] = [*curve.notes, *(text for text in fit.warnings if text not in sentences)]
    test = _extrapolation_test(curve, fit)
    x = np.geomspace(*fit.x_range[curve.x], _LINE_POINTS)
    return (
        {"status": "fitted", "reason": None}
        | common
        | {
            "law": law_document(fit),
            "params": params_document(fit),
            "chi2": fit.chi2,
            "degrees_of_freedom": fit.degrees_of_freedom,
            "birge_ratio": fit.birge_ratio,
            "num_starts": fit.result.num_starts,
            "num_starts_converged": fit.result.num_converged,
            "num_samples": fit.samples().num_drawn,
            "num_samples_converged": len(fit.samples().theta),
            "x_range": list(fit.x_range[curve.x]),
            "line": _line(fit, x),
            "residuals": residuals_document(fit),
            "extrapolation": None if test is None else _extrapolation_document(test, x),
            "ahead": _ahead(curve, fit, None if test is None else test.tested),
        }
    )


def law_document(fit: LawFit) -> dict[str, str]:
    """The law's name, title, formula and source."""
    return {name: getattr(fit.form, name) for name in ("name", "title", "formula", "source")}


def params_document(fit: LawFit) -> dict[str, Any]:
    """Per parameter its value, 95% interval, unit, meaning, and what is to be said when it is not determined."""
    undetermined = fit.undetermined()
    found = {}
    for parameter in fit.form.parameters:
        low, high = fit.interval(parameter.name)
        found[parameter.name] = {
            "value": fit.params[parameter.name],
            "low": low,
            "high": high,
            "unit": parameter.unit,
            "meaning": parameter.meaning,
            "undetermined": undetermined.get(parameter.name),
        }
    return found


def residuals_document(fit: LawFit) -> list[dict[str, Any]]:
    """Per run its x (a list in two variables), measured error, fitted one, and standard error."""
    data = fit.data
    assert data.sigma is not None
    fitted = fit.predict(*data.x)
    x = data.x[0].tolist() if len(data.x) == 1 else data.x.T.tolist()
    columns = zip(data.rows.tolist(), x, data.y.tolist(), fitted.tolist(), data.sigma.tolist(), strict=True)
    return [dict(zip(("run", "x", "value", "fitted", "sigma"), row, strict=True)) for row in columns]


def ranking_document(curve: Curve) -> dict[str, Any]:
    """One element of `law_ranking`: every law on the curve's points, the best extrapolation first."""
    options = {name: value for name, value in fit_options(curve).items() if name not in ("x", "y")}
    table = rank_laws(curve.table(), ERROR_LAWS, x=curve.x, y="error", options=dict.fromkeys(ERROR_LAWS, options))
    rows = table.astype(object).where(table.notna() & ~table.isin([np.inf]), None).to_dict("records")
    return {
        "objective": curve.objective,
        "preset": curve.preset,
        "x": curve.x,
        "num_points": len(curve.points),
        "rows": rows,
    }


def _extrapolation_test(curve: Curve, fit: LawFit) -> Extrapolation | None:
    try:
        return extrapolation_test(curve.table(), fit.law, **fit_options(curve))
    except ValueError:  # too few points below half of the largest x: nothing was validated
        return None


def _extrapolation_document(test: Extrapolation, x: np.ndarray) -> dict[str, Any]:
    drawn = x[:: max(1, len(x) // _AHEAD_POINTS)]
    return {
        "cutoff": test.cutoff,
        "rmse": test.rmse,
        "bias": test.bias,
        "num_fitted": test.num_fitted,
        "num_scored": test.num_scored,
        "variable": test.variable,
        "reach": test.reach,
        "validated": test.validated,
        "line": {"x": drawn.tolist(), "y": test.fit.predict(drawn).tolist()},
    }


def _ahead(curve: Curve, fit: LawFit, tested: ScoredReach | None) -> dict[str, Any]:
    largest = fit.x_range[curve.x][1]
    x = np.geomspace(largest, AHEAD * largest, _AHEAD_POINTS)
    return _line(fit, x) | {"factor": AHEAD, "warning": fit.extrapolation(x, tested=tested)}


def _line(fit: LawFit, x: np.ndarray) -> dict[str, list[float]]:
    low, high = fit.band(x)
    return {"x": x.tolist(), "y": fit.predict(x).tolist(), "low": low.tolist(), "high": high.tolist()}
