"""What a fit is given, checked: columns of a table as arrays, and one sentence for whatever no fit can use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_studies.forms import Form
from scaling_studies.laws import Array

Points = pd.DataFrame | Mapping[str, Any]
_ACCURACY = re.compile(r"acc(?!um)|top-?[15]|recall|precision", re.IGNORECASE)
_ERROR = re.compile(r"err", re.IGNORECASE)
_FALLS = re.compile(r"err|loss|miss", re.IGNORECASE)
# Rows at one x whose y differ by more than this ratio are no repeats of one measurement.
_DISAGREEMENT = 1.25
# A column of numbers with more different values per row than this holds measurements and names no groups of rows.
_GROUPS_PER_ROW = 0.5
_COMPUTE = re.compile(r"compute|flop|mac", re.IGNORECASE)
# Standard errors that a difference must exceed to be more than noise.
_BEYOND_NOISE = 4.0
# Rank correlation of x and y from which on y plainly rises.
_RISES = 0.6


@dataclass(frozen=True, eq=False)
class FitInput:
    """Arrays of a fit: `x` `V x n`; `y`, `weight`, `rows` (labels in the table) and `runs` (clusters of rows) `n`.

    `sigma` are standard errors on the law's scale, `None` where the table has none. `warnings` are sentences about the
    data that a reader of the fit must see.
    """

    x_names: tuple[str, ...]
    y_name: str
    x: Array
    y: Array
    weight: Array
    sigma: Array | None
    rows: NDArray[Any]
    runs: NDArray[Any]
    warnings: list[str] = field(default_factory=list)


def read_input(points: Points, law: type[Form], x: str | Sequence[str], y: str, sigma: str | None) -> FitInput:
    """The columns of `points` that a fit of `law` takes.

    Weights are 1, or with `sigma` (a column of standard errors of y) inverse variances on the law's scale with mean 1.
    Raises `ValueError` in one line for what no fit can use.
    """
    x_names = (x,) if isinstance(x, str) else tuple(x)
    if len(x_names) != len(law.variables):
        raise ValueError(
            f"law {law.name!r} takes {len(law.variables)} columns as x ({', '.join(law.variables)}), "
            f"got {list(x_names)}"
        )
    wanted = (*x_names, y, *((sigma,) if sigma else ()))
    table = _table(points, wanted)
    _check_name(law, y)
    columns = {name: _numbers(table, name) for name in wanted}
    for name in (*x_names, *((sigma,) if sigma else ())):
        _refuse(table, name, columns[name] <= 0, "is not above 0")
    stacked, values = np.stack([columns[name] for name in x_names]), columns[y]
    noise = columns[sigma] if sigma else None
    warnings = _check_values(table, law, y, values) + _check_spread(law, stacked, x_names, values, y, noise)
    warnings += _check_repeats(table.drop(columns=[sigma] if sigma else []), stacked, x_names, values, y, noise)
    weight = np.ones(len(values))
    if noise is not None:
        noise = noise / values if law.link == "log" else noise
        weight = noise**-2 / np.mean(noise**-2)
    runs = next((table[name].to_numpy() for name in ("run", "name") if name in table), np.arange(len(table)))
    return FitInput(x_names, y, stacked, values, weight, noise, table.index.to_numpy(), runs, warnings)


def _table(points: Points, wanted: Sequence[str]) -> pd.DataFrame:
    try:
        table = points if isinstance(points, pd.DataFrame) else pd.DataFrame(dict(points))
    except ValueError as error:
        raise ValueError(f"points make no table ({error}); give columns of one length") from error
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        have = ", ".join(map(str, table.columns))
        raise ValueError(f"points have no column {', '.join(map(repr, missing))}; there are {have}")
    if table.empty:
        raise ValueError("points have no rows: nothing to fit")
    return table


def _numbers(table: pd.DataFrame, name: str) -> Array:
    values = pd.to_numeric(table[name], errors="coerce").astype(float).to_numpy(dtype=np.float64, na_value=np.nan)
    _refuse(table, name, np.isnan(values), "is not a number")
    _refuse(table, name, np.isinf(values), "is not finite")
    return values


def _refuse(table: pd.DataFrame, name: str, wrong: NDArray[np.bool_], why: str) -> None:
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        others = f" (and {int(wrong.sum()) - 1} more rows)" if wrong.sum() > 1 else ""
        cell = table[name].iloc[first]
        cell = cell.item() if isinstance(cell, np.generic) else cell
        raise ValueError(
            f"row {table.index[first]}, column {name}: {cell!r} {why}{others}; correct it, or drop it (--where)"
        )


def _check_name(law: type[Form], name: str) -> None:
    """Refuse a y that is an accuracy by its name under a law of errors, which its values need not tell."""
    if law.falls and _ACCURACY.search(name) and not _FALLS.search(name):
        raise ValueError(
            f"column {name} is named as an accuracy, and law {law.name!r} is one of errors: fit 1 - {name} as error "
            f"(load_points(columns={{'error': '1-{name}'}}), --column 'error=1-{name}' --y error), or law 'accuracy'"
        )


def _check_values(table: pd.DataFrame, law: type[Form], name: str, values: Array) -> list[str]:
    """Signs and units of y: negative, per cent instead of fractions."""
    _refuse(table, name, values < 0, "is negative")
    if law.link == "log":
        _refuse(table, name, values == 0, "is 0, which has no logarithm")
    is_fraction = bool(_ACCURACY.search(name) or _ERROR.search(name)) or not law.falls
    above = values > 1
    if is_fraction and above.any():
        if np.median(values) > 1 or not law.falls:
            raise ValueError(f"column {name} reaches {values.max():g}: per cent? Divide it by 100 to have fractions")
        return [f"column {name}: {int(above.sum())} of {len(values)} values are above 1, which no error is"]
    if is_fraction and values.max() < 0.01 and law.falls:
        return [f"column {name} is at most {values.max():g}: fractions are expected, was it divided by 100 twice?"]
    return []


def _check_spread(
    law: type[Form], x: Array, x_names: tuple[str, ...], values: Array, name: str, noise: Array | None
) -> list[str]:
    """Constant columns, one size only, and a y that goes the wrong way."""
    for column, row in zip(x_names, x, strict=True):
        if np.ptp(row) == 0:
            rows = f"all {len(row)} rows" if len(row) > 1 else "the only row"
            raise ValueError(f"column {column} is {row[0]:g} in {rows}: one size only makes no curve")
    if np.ptp(values) == 0:
        raise ValueError(f"column {name} is {values[0]:g} in all {len(values)} rows: a constant column has no curve")
    if len(values) < 4 or (noise is not None and np.ptp(values) < _BEYOND_NOISE * noise.max()):
        return []
    slopes, correlation = _rank_regression(x, values)
    # Along an IsoFLOP slice a loss may rise with N, because D falls: y must go the wrong way with every variable.
    if law.falls and correlation > _RISES and min(slopes) > 0:
        advice = f": is it an accuracy? Then fit 1 - {name}, or law 'accuracy'" if values.max() <= 1 else ""
        raise ValueError(f"column {name} rises with {' and '.join(x_names)}, which no {law.title} does{advice}")
    if not law.falls and correlation > _RISES and max(slopes) < 0:
        raise ValueError(f"column {name} falls with {x_names[0]}: is it an error? Then fit 1 - {name}")
    return []


def _rank_regression(x: Array, y: Array) -> tuple[Array, float]:
    """Slopes of the rank of y on the ranks of all x (`V x n`) together, and the multiple correlation."""
    ranks = np.stack([pd.Series(row).rank().to_numpy(dtype=np.float64) for row in (*x, y)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    slopes = np.linalg.lstsq(ranks[:-1].T, ranks[-1], rcond=None)[0]
    return slopes, float(np.linalg.norm(slopes @ ranks[:-1]) / np.linalg.norm(ranks[-1]))


def _check_repeats(
    table: pd.DataFrame, x: Array, x_names: tuple[str, ...], values: Array, name: str, noise: Array | None
) -> list[str]:
    """Rows at one x: repeats where their seeds differ or their y agree, otherwise refused with a way on."""
    keys = pd.DataFrame(dict(zip(x_names, x, strict=True)))
    if "seed" in table:
        keys["seed"] = table["seed"].to_numpy()
    groups = _grouping(table.drop(columns=[name, *keys], errors="ignore"))
    num_repeats, num_apart, apart = 0, 0, dict[str, None]()
    for _, group in keys.groupby(list(keys.columns), dropna=False, sort=False):
        y = values[group.index]
        if len(group) < 2 or y.max() == y.min():
            continue
        low, high = int(group.index[np.argmin(y)]), int(group.index[np.argmax(y)])
        differing = [column for column in groups if table[column].iloc[[low, high]].nunique() > 1]
        within_noise = noise is not None and np.ptp(y) < _BEYOND_NOISE * np.hypot(noise[low], noise[high])
        if y.max() > _DISAGREEMENT * y.min() and not within_noise:
            raise ValueError(
                f"rows {table.index[low]} and {table.index[high]} share their {', '.join(keys.columns)} but disagree: "
                f"{name} {values[low]:g} and {values[high]:g}; {_way_on(table.iloc[low], differing, x_names)}"
            )
        if differing:
            num_apart, apart = num_apart + len(group), apart | dict.fromkeys(differing)
        else:
            num_repeats += len(group)
    found = []
    shared = f"rows share their {' and '.join(x_names)} with others"
    if num_repeats and "seed" not in table:
        found.append(f"{num_repeats} {shared}: taken as repeats of one point")
    if num_apart:
        found.append(f"{num_apart} {shared} and differ in {', '.join(apart)}: one law goes through all of them")
    return found


def _grouping(table: pd.DataFrame) -> list[str]:
    """The columns whose values name groups of rows (a data set, a size): not one per row, and of numbers few."""
    share = {name: table[name].nunique() / len(table) for name in table.columns}
    numeric = {name for name in table.columns if pd.api.types.is_numeric_dtype(table[name])}
    return [name for name in share if share[name] < 1 and (name not in numeric or share[name] <= _GROUPS_PER_ROW)]


def _way_on(row: pd.Series, differing: list[str], x_names: tuple[str, ...]) -> str:
    """What to do about rows at one x that disagree, of which `row` is the lowest."""
    if not differing:
        return "drop one or fit their groups apart"
    only = f"{differing[0]}={row[differing[0]]}"
    ways = f"they differ in {', '.join(differing)}: fit one value of it alone (--where '{only}')"
    if len(x_names) == 1 and _COMPUTE.search(x_names[0]):
        ways += ", or the lower envelope of all (envelope(), python -m scaling_studies.scripts.plot_error_vs_compute)"
    return ways


def check_count(form: Form, x: Array, x_names: tuple[str, ...], num_free: int) -> None:
    """Raise `ValueError` when there are fewer different x than the law's free parameters and one to test them."""
    distinct, needed = len(np.unique(x, axis=1).T), num_free + 1
    if distinct < needed:
        simpler = "" if len(x_names) > 1 or needed <= 3 else ", law m1 needs 3"
        names = ", ".join(x_names)
        raise ValueError(f"not enough points: {distinct} distinct {names}, a {form.title} needs {needed}{simpler}")
