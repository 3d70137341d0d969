"""The two reference rows of a study, and which trained runs do not beat them.

A probe on raw pixels says what the task gives away without any encoder; a probe on the untrained encoder of the same
objective and preset says what the architecture gives without training. Learning that does not beat both has shown
nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling_studies.curves import standard_error
from scaling_studies.points import chosen


@dataclass(frozen=True)
class Reference:
    """A reference error: the mean over its seeds, and the standard error of one seed's measurement.

    Seeds are measured on the same test images, so that averaging them does not shrink the error from the test set.
    """

    name: str
    kind: str
    objective: str
    preset: str | None
    value: float
    error: float


@dataclass(frozen=True)
class Shortfall:
    """A trained run that does not beat a reference: `verdict` is `not lower` or `within noise`."""

    run: str
    value: float
    reference: Reference
    verdict: str


def references(points: pd.DataFrame) -> list[Reference]:
    """Raw pixels first, then the untrained encoders by objective and size."""
    rows = chosen(points)
    rows = rows[rows["kind"] != "trained"].sort_values(["kind", "objective", "params_encoder", "name"])
    found = []
    for (kind, objective, preset), same in rows.groupby(["kind", "objective", "preset"], sort=False, dropna=False):
        preset = None if pd.isna(preset) else str(preset)
        name = "raw pixels" if kind == "raw_pixels" else f"untrained {objective}/{preset}"
        values, counts = (same[column].to_numpy(dtype=np.float64) for column in ("value", "num_test"))
        error = float(np.mean(standard_error(values, counts)))
        found.append(Reference(name, str(kind), str(objective), preset, float(np.mean(values)), error))
    return found


def shortfalls(points: pd.DataFrame) -> list[Shortfall]:
    """Every trained run whose error is not lower than a reference's, or lower by less than the noise of the two.

    Noise is 1.96 standard errors of the difference.
    """
    rows = chosen(points)
    rows = rows[rows["kind"] == "trained"]
    errors = standard_error(rows["value"].to_numpy(dtype=float), rows["num_test"].to_numpy(dtype=float))
    known = references(points)
    found = []
    for row, error in zip(rows.to_dict("records"), errors, strict=True):
        for reference in references_of(str(row["objective"]), str(row["preset"]), known):
            gain = reference.value - row["value"]
            if gain <= 0:
                found.append(Shortfall(row["name"], row["value"], reference, "not lower"))
            elif gain < 1.96 * math.hypot(error, reference.error):
                found.append(Shortfall(row["name"], row["value"], reference, "within noise"))
    return found


def num_held(points: pd.DataFrame) -> dict[str, int]:
    """How many trained runs are held against each reference, by its name."""
    rows = chosen(points)
    rows = rows[rows["kind"] == "trained"]
    known = references(points)
    pairs = zip(rows["objective"], rows["preset"], strict=True)
    return dict(Counter(found.name for pair in pairs for found in references_of(*pair, known)))


def missing_references(points: pd.DataFrame) -> list[str]:
    """Names of the references that trained runs should be held against and that were not measured."""
    rows = chosen(points)
    trained = rows[rows["kind"] == "trained"].sort_values(["objective", "params_encoder"])
    have = {reference.name for reference in references(points)}
    pairs = trained[["objective", "preset"]].drop_duplicates()
    wanted = ["raw pixels", *(f"untrained {row.objective}/{row.preset}" for row in pairs.itertuples())]
    return [name for name in wanted if name not in have]


def references_of(objective: str, preset: str, known: list[Reference]) -> list[Reference]:
    """The references that a trained run is held against: raw pixels, and its own encoder without training."""
    return [
        reference
        for reference in known
        if reference.kind == "raw_pixels" or (reference.objective, reference.preset) == (objective, preset)
    ]
