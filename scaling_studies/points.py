"""The table of points: one row per run, its schema, and reading and writing it as CSV.

A run without a result keeps its row: its name, status and reason are filled, everything measured is blank. Rows of
others (kind `imported`) stand in the table with their source; they are drawn, and on no curve of ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from arvis_scale.atomic import whole_file

METRIC = "linear_probe_error"
# Columns of errors that curves can be made of, and what they measure; `error` is `value`.
METRICS = {"error": METRIC, "error_attentive": "attentive_probe_error", "error_knn": "knn_probe_error"}
IMPORTED = "imported"
KINDS = ("trained", "untrained", "raw_pixels", IMPORTED)
_DTYPES: dict[str, Any] = {"text": object, "count": "Int64", "number": float, "fraction": float, "flag": "boolean"}
# Standard errors to either end of a 95% interval.
_Z = 1.959964
STATUSES = ("pending", "running", "preempted", "completed", "failed", "invalid")


@dataclass(frozen=True)
class Column:
    """One column of the table of points.

    `required` says in which rows it may not be blank: all of them, those with a measured value, those of them that are
    runs of ours, those of one encoder of ours (every such run but raw pixels), or none.
    """

    name: str
    kind: Literal["text", "count", "number", "fraction", "flag"]
    required: Literal["always", "measured", "ours", "encoder", "never"]
    meaning: str


COLUMNS = (
    Column("name", "text", "always", "the run's folder name, unique in the study"),
    Column("kind", "text", "measured", "trained, untrained (same encoder, random weights), raw_pixels or imported"),
    Column("objective", "text", "measured", "pretraining method: the run's `method` or else its objective; raw_pixels"),
    Column("preset", "text", "encoder", "model size by name; blank for raw pixels"),
    Column("params_encoder", "count", "ours", "parameters of the encoder that is probed"),
    Column("params_total", "count", "ours", "parameters that are trained, heads and predictors included"),
    Column(
        "unique_images",
        "count",
        "never",
        "different images in the pretraining set; 0 for references, blank where the run had a stream of unknown length",
    ),
    Column("samples_seen", "count", "ours", "images shown in pretraining, repeats counted; 0 for references"),
    Column("train_flops", "number", "ours", "floating point operations of pretraining"),
    Column("train_loss", "number", "never", "last training loss"),
    Column("val_loss", "number", "never", "pretraining loss on held-out images"),
    Column("metric", "text", "measured", "what value is; linear_probe_error = 1 - top-1 accuracy"),
    Column("value", "fraction", "never", "the measurement; blank for a run without a result"),
    Column("value_low", "fraction", "ours", "lower end of the 95% binomial interval of value"),
    Column("value_high", "fraction", "ours", "upper end of it"),
    Column("num_test", "count", "ours", "test images that value, and the errors of other probes, are measured on"),
    Column("sigma", "number", "never", "binomial standard error of value (Agresti-Coull)"),
    Column("error_attentive", "fraction", "never", "1 - top-1 accuracy of the attentive probe; blank where not made"),
    Column("sigma_attentive", "number", "never", "its binomial standard error"),
    Column("error_knn", "fraction", "never", "1 - top-1 accuracy of the nearest-neighbor probe; blank where not made"),
    Column("sigma_knn", "number", "never", "its binomial standard error"),
    Column("seed", "count", "ours", "seed of the run; seeds are repeats of one point"),
    Column("cell", "text", "never", "tune cell of the run: the same run without the tuned keys"),
    Column("chosen", "flag", "never", "false for the runs of a tune cell that have not its lowest val_loss"),
    Column("pretrain_data", "text", "never", "name and hash of the pretraining set"),
    Column("probe_data", "text", "ours", "name and hash of the labelled set of the probe"),
    Column("wall_seconds", "number", "ours", "wall-clock time of the run"),
    Column("device_seconds", "number", "ours", "wall-clock time summed over devices"),
    Column("world_size", "count", "ours", "number of processes"),
    Column("strategy", "text", "never", "DeepSpeed strategy, such as zero1"),
    Column("source", "text", "never", "where an imported row is from"),
    Column("status", "text", "always", "pending, running, preempted, completed, failed; invalid: unreadable result"),
    Column("reason", "text", "never", "why there is no value, or what the run said about its end"),
)


def points_table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """A validated table of points from one dict per run; keys that are absent become blanks.

    Raises `ValueError` naming the row and the column of the first cell that does not fit the schema.
    """
    table = pd.DataFrame(rows, columns=[column.name for column in COLUMNS], dtype=object)
    return _typed(table, source="points")


def write_points(path: Path, points: pd.DataFrame) -> None:
    """Write the table as CSV; numbers keep every digit, blanks are empty cells."""
    with whole_file(path) as temporary:
        points.to_csv(temporary, index=False, lineterminator="\n")


def read_points(path: Path) -> pd.DataFrame:
    """Read a table that `write_points` or a spreadsheet wrote.

    Raises `ValueError` naming the file, the row (as its run's name and its number below the header) and the column.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable CSV table ({str(error).strip()}); collect it again") from error
    expected = [column.name for column in COLUMNS]
    missing = [name for name in expected if name not in table.columns]
    unknown = [name for name in table.columns if name not in expected]
    if missing or unknown:
        raise ValueError(f"{path}: missing columns {missing}, unknown columns {unknown}; collect it again")
    return _typed(table[expected].astype(object).where(table[expected] != "", None), source=str(path))


def measured(points: pd.DataFrame) -> pd.DataFrame:
    """The rows that carry a value."""
    return points[points["value"].notna()]


def chosen(points: pd.DataFrame) -> pd.DataFrame:
    """The rows that curves and comparisons are made of: ours, with a value, and of a tune cell the best one."""
    rows = measured(points)
    return rows[(rows["kind"] != IMPORTED) & rows["chosen"].fillna(True).astype(bool)]


def of_metric(points: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The table with `metric` (of `METRICS`) as its `value`, and the 95% Wilson interval of it.

    All probes of a run are made on the same `num_test` images. A run without that probe is one without a value.
    """
    if metric == METRIC:
        return points
    (column,) = (name for name, measures in METRICS.items() if measures == metric)
    error, count = (points[name].astype(float).to_numpy() for name in (column, "num_test"))
    center, root = error + _Z**2 / (2 * count), _Z * np.sqrt(error * (1 - error) / count + (_Z / (2 * count)) ** 2)
    low, high = (np.clip((center + side * root) / (1 + _Z**2 / count), 0.0, 1.0) for side in (-1, 1))
    found = points.assign(
        metric=metric, value=error, value_low=np.minimum(low, error), value_high=np.maximum(high, error)
    )
    without = points["value"].notna() & np.isnan(error)
    return found.assign(reason=points["reason"].where(~without, f"no {column}"))


def missing_runs(points: pd.DataFrame) -> list[str]:
    """One phrase per run without a value: its name, its status and why."""
    rows = points[points["value"].isna()]
    return [
        f"{name} ({status})" if pd.isna(reason) else f"{name} ({status}: {reason})"
        for name, status, reason in zip(rows["name"], rows["status"], rows["reason"], strict=True)
    ]


def _typed(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """`table` (objects) with a proper type per column, every cell and the rules between cells checked."""
    typed: dict[str, pd.Series] = {}
    is_measured = [_present(value) for value in table["value"]]
    is_ours = [yes and kind != IMPORTED for yes, kind in zip(is_measured, table["kind"], strict=True)]
    is_encoder = [yes and kind != "raw_pixels" for yes, kind in zip(is_ours, table["kind"], strict=True)]
    needed = {
        "always": [True] * len(table),
        "measured": is_measured,
        "ours": is_ours,
        "encoder": is_encoder,
        "never": [False] * len(table),
    }
    for column in COLUMNS:
        cells: list[Any] = []
        rows = zip(table["name"], table[column.name], needed[column.required], strict=True)
        for number, (run, cell, required) in enumerate(rows, start=1):
            try:
                cells.append(_parse(column, cell, required))
            except ValueError as error:
                raise ValueError(f"{source}, row {number} ({run}), column {column.name}: {error}") from error
        typed[column.name] = pd.Series(cells, dtype=_DTYPES[column.kind])
    points = pd.DataFrame(typed)
    _check_rules(points, source)
    return points


def _parse(column: Column, cell: object, required: bool) -> object:
    """One cell as its column's type; `None` when blank. Raises `ValueError` saying what is wrong with the cell."""
    if not _present(cell):
        if required:
            raise ValueError("is blank")
        return None
    if column.kind == "text":
        return str(cell)
    if column.kind == "flag":
        if str(cell).lower() not in ("true", "false"):
            raise ValueError(f"{cell!r} is not true or false")
        return str(cell).lower() == "true"
    try:
        number = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{cell!r} is not a number") from None
    if column.kind == "count":
        if not (number >= 0 and number.is_integer()):
            raise ValueError(f"{cell!r} is not a whole number of 0 or more")
        return int(number)
    if not math.isfinite(number):
        raise ValueError(f"{cell!r} is not finite")
    if column.kind == "fraction" and not 0 <= number <= 1:
        raise ValueError(f"{cell!r} is not a fraction from 0 to 1")
    return number


def _present(cell: object) -> bool:
    return cell is not None and not pd.isna(cell) and cell != ""  # type: ignore[call-overload]


def _check_rules(points: pd.DataFrame, source: str) -> None:
    """Rules between cells: unique names, known words, and a pretrained row has images; of a stream nobody knows."""
    repeated = points["name"][points["name"].duplicated()]
    if len(repeated):
        raise ValueError(f"{source}, row {repeated.index[0] + 1}, column name: {repeated.iloc[0]!r} is there twice")
    for number, row in enumerate(points.to_dict("records"), start=1):
        where = f"{source}, row {number} ({row['name']}), column"
        if row["status"] not in STATUSES:
            raise ValueError(f"{where} status: {row['status']!r} is none of {', '.join(STATUSES)}")
        if pd.isna(row["value"]):
            continue
        if row["kind"] not in KINDS:
            raise ValueError(f"{where} kind: {row['kind']!r} is none of {', '.join(KINDS)}")
        if row["metric"] != METRIC:
            raise ValueError(f"{where} metric: {row['metric']!r} is not {METRIC}")
        if row["kind"] == IMPORTED:
            if pd.isna(row["source"]):
                raise ValueError(f"{where} source: is blank; an imported row says where it is from")
            continue
        if row["num_test"] < 1:
            raise ValueError(f"{where} num_test: a measured run has at least 1 test image, got {row['num_test']}")
        if not row["value_low"] <= row["value"] <= row["value_high"]:
            raise ValueError(f"{where} value: {row['value']} is outside {row['value_low']} to {row['value_high']}")
        for column in ("unique_images", "samples_seen"):
            if row["kind"] == "trained" and not pd.isna(row[column]) and row[column] < 1:
                raise ValueError(f"{where} {column}: a trained run has at least 1, got {row[column]}")
