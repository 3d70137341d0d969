"""The two reference rows of a study, and which trained runs do not beat them.

A probe on raw pixels says what the task gives away without any encoder; a probe on the untrained encoder of the same
objective and preset says what the architecture gives without training. Learning that does not beat both has shown
nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scaling_studies.curves import standard_error
from scaling_studies.points import chosen


@dataclass(frozen=True)
class Reference:
    """A reference error: the mean over its seeds, and the standard error of one seed's measurement.

    Seeds are measured on the same test images, so that averaging them does not shrink the error from the test set.
    `variant`: where a study has several of one objective and preset, which differ in an option, the parts of the names
    that tell this one from the others; only runs whose names have them are held against it.
    """

    name: str
    kind: str
    objective: str
    preset: str | None
    value: float
    error: float
    variant: tuple[str, ...] = ()


# Parts of a name in which repeats of one reference differ: seeds and, for iGPT's palette, images.
_REPEATS = re.compile(r"-(s\d+|u\d+|uall|subset_seed_\d+)(?=-|$)")


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
    for (kind, objective, preset), group in rows.groupby(["kind", "objective", "preset"], sort=False, dropna=False):
        preset = None if pd.isna(preset) else str(preset)
        name = "raw pixels" if kind == "raw_pixels" else f"untrained {objective}/{preset}"
        for variant, same in _variants(group):
            values, counts = (same[column].to_numpy(dtype=np.float64) for column in ("value", "num_test"))
            error = float(np.mean(standard_error(values, counts)))
            called = f"{name} ({', '.join(variant)})" if variant else name
            found.append(Reference(called, str(kind), str(objective), preset, float(np.mean(values)), error, variant))
    return found


def _variants(group: pd.DataFrame) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """The rows of a group apart by what their names differ in besides seed and images."""
    parts = group["name"].map(lambda name: tuple(_REPEATS.sub("", name).split("-")))
    shared = set.intersection(*map(set, parts))
    own = parts.map(lambda found: tuple(part for part in found if part not in shared))
    return [(variant, group[own == variant]) for variant in dict.fromkeys(own)]


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
        for reference in references_of(row, known):
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
    return dict(Counter(found.name for row in rows.to_dict("records") for found in references_of(row, known)))


def missing_references(points: pd.DataFrame) -> list[str]:
    """Names of the references that trained runs should be held against and are not: they were not measured, or in
    several variants of which the runs' names do not say which is theirs.
    """
    rows = chosen(points)
    trained = rows[rows["kind"] == "trained"].sort_values(["objective", "params_encoder"])
    known, missing = references(points), []
    several = {one.name.partition(" (")[0] for one in known if one.variant}
    for row in trained.to_dict("records"):
        have = {reference.kind for reference in references_of(row, known)}
        wanted = {"raw_pixels": "raw pixels", "untrained": f"untrained {row['objective']}/{row['preset']}"}
        missing += [name for kind, name in sorted(wanted.items()) if kind not in have]
    untold = " (measured in several variants, and names of runs do not say which is theirs)"
    return [f"{name}{untold}" if name in several else name for name in dict.fromkeys(missing)]


def references_of(run: Mapping[str, Any], known: list[Reference]) -> list[Reference]:
    """The references that a row of a trained run is held against: raw pixels, and its own encoder without training.

    Of the variants of a reference it is the one whose parts the run's name has, and most of them; none where several
    have as many.
    """
    parts = set(str(run["name"]).split("-"))
    found = []
    for kind, place in (("raw_pixels", None), ("untrained", (run["objective"], run["preset"]))):
        fitting = [
            one
            for one in known
            if one.kind == kind
            and (place is None or (one.objective, one.preset) == place)
            and parts.issuperset(one.variant)
        ]
        most = max((len(one.variant) for one in fitting), default=0)
        closest = [one for one in fitting if len(one.variant) == most]
        found += closest if len(closest) == 1 else []
    return found
