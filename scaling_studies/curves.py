"""Which runs make one curve: what is on its axis, what is held fixed along it, and what had to be left out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from scaling_studies.laws import Array
from scaling_studies.points import chosen

AXES = {"unique_images": "unique images", "samples_seen": "samples seen", "params_encoder": "encoder parameters"}


@dataclass(frozen=True, eq=False)
class Curve:
    """Points of one objective along one axis.

    `x` is the axis' column. `preset` is the model size of a curve over images, `None` along encoder parameters.
    `held` are the columns that are the same at every point; `None` for the unique images of runs from streams, whose
    number nobody knows. `notes` say what a reader must know about the choice.
    """

    objective: str
    preset: str | None
    x: str
    held: dict[str, int | None]
    points: pd.DataFrame
    notes: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        return f"{self.objective}/{self.preset or 'all presets'} against {self.x}"

    @property
    def samples_seen(self) -> tuple[int, int]:
        """Smallest and largest samples seen along the curve."""
        return int(self.points["samples_seen"].min()), int(self.points["samples_seen"].max())

    def table(self) -> pd.DataFrame:
        """What `fit_law` is given, labelled by run: x, `error`, its standard error `sigma`, and `seed`."""
        return fit_table(self.points, self.x)


def standard_error(error: Array, num_test: Array) -> Array:
    """Binomial standard error of an error rate measured on `num_test` images.

    Taken at the Agresti-Coull estimate (two successes and two failures added; Am. Stat. 52, 1998), which is above zero
    even when every image is right. All runs share one test set, which the fit ignores: for a difference between runs
    that errs on the wide side, for the level of several seeds together on the narrow side.
    """
    added = num_test + 4
    rate = (error * num_test + 2) / added
    return np.sqrt(rate * (1 - rate) / added)


def fit_table(rows: pd.DataFrame, *x: str) -> pd.DataFrame:
    """Rows of points as `fit_law` takes them, labelled by run: columns `x`, `error`, `sigma`, `seed`."""
    error, num_test = (rows[name].to_numpy(dtype=np.float64) for name in ("value", "num_test"))
    columns = {name: rows[name].to_numpy(dtype=np.float64) for name in x}
    columns |= {"error": error, "sigma": standard_error(error, num_test), "seed": rows["seed"].to_numpy(dtype=float)}
    return pd.DataFrame(columns, index=rows["name"].to_numpy())


def curves_over_unique_images(points: pd.DataFrame, num_needed: int) -> list[Curve]:
    """One curve per objective and preset, sorted by objective and encoder size; runs from streams are on none."""
    trained = _trained(points)
    trained = trained[trained["unique_images"].notna()]
    curves = []
    for (objective, preset), rows in trained.groupby(["objective", "preset"], sort=True):
        curves.append(_at_one_samples_seen(str(objective), str(preset), "unique_images", {}, rows, num_needed))
    return sorted(curves, key=lambda curve: (curve.objective, curve.points["params_encoder"].min(), curve.preset))


def curves_over_samples_seen(points: pd.DataFrame, num_needed: int) -> list[Curve]:
    """One curve per objective and preset that was shown different numbers of samples of one pretraining set.

    It is made at the largest number of unique images with enough points.
    """
    curves = []
    for (objective, preset), rows in _trained(points).groupby(["objective", "preset"], sort=True):
        at, held = _at_largest_set(rows, "samples_seen", num_needed)
        if at["samples_seen"].nunique() > 1:
            notes = _repeats(at, "samples_seen")
            curves.append(Curve(str(objective), str(preset), "samples_seen", held, at, notes))
    return sorted(curves, key=lambda curve: (curve.objective, curve.points["params_encoder"].min(), curve.preset))


def curves_over_params(points: pd.DataFrame, num_needed: int) -> list[Curve]:
    """One curve per objective, at the largest number of unique images at which it has enough model sizes."""
    curves = []
    for objective, rows in _trained(points).groupby("objective", sort=True):
        at, held = _at_largest_set(rows, "params_encoder", num_needed)
        curves.append(_at_one_samples_seen(str(objective), None, "params_encoder", held, at, num_needed))
    return curves


def _trained(points: pd.DataFrame) -> pd.DataFrame:
    rows = chosen(points)
    trained = rows[rows["kind"] == "trained"]
    # References are probed too, but an untrained encoder has no pretraining set of its own.
    for name, column in (("probe_data", rows["probe_data"]), ("pretrain_data", trained["pretrain_data"])):
        data_sets = sorted(column.dropna().unique())
        if len(data_sets) > 1:
            raise ValueError(f"column {name} mixes {', '.join(data_sets)}: their errors make no common curve")
    return trained


def _at_largest_set(rows: pd.DataFrame, x: str, num_needed: int) -> tuple[pd.DataFrame, dict[str, int | None]]:
    """The rows at the largest number of unique images that was measured at enough x, and that number as `held`.

    Runs from streams are a set of their own, which is taken where no known number was measured at enough.
    """
    unique_images = rows["unique_images"].fillna(0)
    largest = _largest_with_enough(rows.assign(unique_images=unique_images), "unique_images", x, num_needed)
    return rows[unique_images == largest], {"unique_images": largest or None}


def _at_one_samples_seen(
    objective: str, preset: str | None, x: str, held: dict[str, int | None], rows: pd.DataFrame, num_needed: int
) -> Curve:
    """The curve through `rows` at one number of samples seen, the largest that was measured at enough x.

    Where no single number has enough points (say, when epochs were fixed instead), every x keeps its largest and a note
    says that two things change along the axis.
    """
    seen = _largest_with_enough(rows, "samples_seen", x, num_needed)
    at_seen, num_x = rows[rows["samples_seen"] == seen], rows[x].nunique()
    if at_seen[x].nunique() >= min(num_needed, num_x):
        left_out = sorted(int(value) for value in rows["samples_seen"].unique() if value != seen)
        other = f"fitted at samples_seen = {seen:,}, the largest with enough points; left out: "
        notes = [other + ", ".join(f"{value:,}" for value in left_out)] if left_out else []
        return Curve(objective, preset, x, held | {"samples_seen": seen}, at_seen, notes + _repeats(at_seen, x))
    largest = rows[rows["samples_seen"] == rows.groupby(x)["samples_seen"].transform("max")]
    low, high = int(largest["samples_seen"].min()), int(largest["samples_seen"].max())
    note = f"samples_seen changes along this curve, from {low:,} to {high:,}: its fall is not due to {AXES[x]} alone"
    return Curve(objective, preset, x, held, largest, [note, *_repeats(largest, x)])


def _repeats(rows: pd.DataFrame, x: str) -> list[str]:
    """The note on runs that the table cannot tell apart; runs of several seeds are no such runs."""
    repeated = rows[rows.duplicated([x, "seed"], keep=False)]
    if not len(repeated):
        return []
    names = ", ".join(repeated["name"])
    return [f"the same {x} and seed more than once ({names}): they differ in something that is no column here"]


def _largest_with_enough(rows: pd.DataFrame, column: str, x: str, num_needed: int) -> int:
    """The largest value of `column` measured at `num_needed` different x, or else the one measured at most."""
    counts = rows.groupby(column)[x].nunique()
    enough = counts[counts >= min(num_needed, counts.max())]
    return int(enough.index.max())
