"""What fits.json says about every pair of methods on curves of one kind: efficiency, its curve, and crossings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from scaling_studies.curve_documents import FittedCurve
from scaling_studies.curves import Curve
from scaling_studies.efficiency import common_qualities, crossings, efficiency, slices_of
from scaling_studies.law_fit import LawFit
from scaling_studies.slices import COMPUTE
from scaling_studies.statements import method_name, method_order, percent
from scaling_studies.surface_documents import Surface


def pairs(fitted: list[FittedCurve]) -> list[tuple[FittedCurve, FittedCurve]]:
    """Every two methods on curves of the same axis and preset, ours first."""
    found = []
    for two in combinations(fitted, 2):
        first, second = sorted(two, key=lambda item: method_order(item.curve.objective))
        if first.curve.objective != second.curve.objective and (first.curve.x, first.curve.preset) == (
            second.curve.x,
            second.curve.preset,
        ):
            found.append((first, second))
    return found


def efficiency_rows(first: FittedCurve, second: FittedCurve) -> list[dict[str, Any]]:
    """Efficiency of the first curve's method over the second's at two errors, or one row that says why it has none."""
    common = _names(first, second) | {
        "num_encoder_params": int(first.curve.points["params_encoder"].max()),
        "notes": _differences(first.curve, second.curve),
    }
    names = [method_name(item.curve.objective) for item in (first, second)]
    if first.fit is None or second.fit is None:
        reasons = [f"{name}: {item.reason}" for name, item in zip(names, (first, second), strict=True) if item.reason]
        return [common | {"status": "not fitted", "reason": "; ".join(reasons)}]
    return _ratio_rows(common, names, first.fit, second.fit)


def compute_rows(first: Surface, second: Surface) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Compute efficiency of two methods as `efficiency` and `efficiency_curves` have it.

    It is read off their surfaces, at the best split of every budget, each with its own cost of a sample; nothing where
    the study varies no samples seen.
    """
    if first.fit is None or second.fit is None or first.per_sample is None or second.per_sample is None:
        return [], []
    names = {"method_1": first.objective, "method_2": second.objective, "x": COMPUTE, "preset": None}
    size = int(first.fit.data.x[0].max())
    options = {"over": COMPUTE, "flops_per_param_sample": (first.per_sample, second.per_sample)}
    methods = [method_name(surface.objective) for surface in (first, second)]
    try:
        common = names | {"num_encoder_params": size, "notes": []}
        rows = _ratio_rows(common, methods, first.fit, second.fit, **options)
        return rows, list(_ratio_curve(names, first.fit, second.fit, **options))
    except ValueError as error:
        return [common | {"status": "not reached", "reason": str(error)}], []


def _ratio_rows(
    common: dict[str, Any], names: list[str], fit_1: LawFit, fit_2: LawFit, **options: Any
) -> list[dict[str, Any]]:
    """The ratio at the lowest and the middle common error, or the row that says that there is none."""
    pair = slices_of(fit_1, fit_2, **options)
    errors = common_qualities(*pair)
    if errors is None:
        ranges = [each.quality_range() for each in pair]
        spans = [
            f"{name}'s fitted error goes from {percent(worst)} to {percent(best)}"
            for name, (best, worst) in zip(names, ranges, strict=True)
        ]
        return [common | {"status": "not reached", "reason": f"not reached within the data: {', '.join(spans)}"}]
    rows = []
    for at, error in (("lowest", errors[0]), ("middle", sum(errors) / 2)):
        ratio = asdict(efficiency(fit_1, fit_2, at=error, **options))
        kept = {name: ratio[name] for name in _KEPT} | _open_ends(ratio["low"], ratio["high"])
        rows.append(common | {"status": "measured", "reason": None, "at": at} | kept)
    return rows


_KEPT = ("quality", "ratio", "x_1", "x_2", "outside_1", "outside_2")


def efficiency_curve(first: FittedCurve, second: FittedCurve) -> Iterator[dict[str, Any]]:
    """The pair's ratio over the errors that both pass within their data; nothing where they share none."""
    if first.fit is not None and second.fit is not None:
        yield from _ratio_curve(_names(first, second), first.fit, second.fit)


def _ratio_curve(names: dict[str, Any], fit_1: LawFit, fit_2: LawFit, **options: Any) -> Iterator[dict[str, Any]]:
    if common_qualities(*slices_of(fit_1, fit_2, **options)) is None:
        return
    table = efficiency(fit_1, fit_2, **options).dropna(subset=["ratio"])
    ends = [_open_ends(low, high) for low, high in zip(table["low"], table["high"], strict=True)]
    yield names | {
        **{name: table[name].astype(float).tolist() for name in ("quality", "ratio", "x_1", "x_2")},
        **{name: [end[name] for end in ends] for name in ("low", "high")},
    }


def crossing_rows(first: FittedCurve, second: FittedCurve) -> list[dict[str, Any]]:
    """Where the pair's fitted curves cross within both methods' data."""
    if first.fit is None or second.fit is None:
        return []
    rows = []
    for found in crossings(first.fit, second.fit):
        ends = [end if np.isfinite(end) else None for end in (found.low, found.high)]
        place = {"at_x": found.x, "quality": found.quality, "low": ends[0], "high": ends[1], "share": found.share}
        better = (first, second)[found.better_below - 1].curve.objective
        rows.append(_names(first, second) | place | {"better_below": better})
    return rows


def _names(first: FittedCurve, second: FittedCurve) -> dict[str, Any]:
    return {
        "method_1": first.curve.objective,
        "method_2": second.curve.objective,
        "x": first.curve.x,
        "preset": first.curve.preset,
    }


def _open_ends(low: float, high: float) -> dict[str, float | None]:
    return {"low": float(low) or None, "high": float(high) if np.isfinite(high) else None}


def _differences(curve_1: Curve, curve_2: Curve) -> list[str]:
    """What is not the same at the two curves although it should be, in sentences."""
    found = []
    if curve_1.x != "samples_seen" and curve_1.samples_seen != curve_2.samples_seen:
        spans = [" to ".join(f"{end:,}" for end in sorted(set(curve.samples_seen))) for curve in (curve_1, curve_2)]
        found.append(f"samples_seen differ: {curve_1.objective} {spans[0]}, {curve_2.objective} {spans[1]}")
    images = [curve.held.get("unique_images") for curve in (curve_1, curve_2)]
    if images[0] != images[1]:
        first, second = ("unknown" if number is None else f"{number:,}" for number in images)
        found.append(f"unique_images differ: {curve_1.objective} {first}, {curve_2.objective} {second}")
    return found
