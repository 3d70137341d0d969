"""Tables of others, and learning curves inside one run, as points that `fit_law` and everything after it take.

A table has one row per measurement. Its columns, of which only those that a fit names must be there:

| column | unit | meaning |
|---|---|---|
| objective | text | pretraining method |
| params | parameters | of the model on the axis; params_encoder and params_total where both are known |
| unique_images | images | different images in the pretraining set; blank for streams |
| samples_seen | images | images shown, repeats counted |
| flops | FLOP | training compute |
| metric | text | what value is |
| value, loss, error | as the metric | the measurement; errors and accuracies are fractions |
| seed | whole number | seeds are repeats of one point |
| run | text | rows of one run are resampled together by `method="runs"` |
| source | text | where the number is from |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

NUMBERS = (
    "params",
    "params_encoder",
    "params_total",
    "unique_images",
    "samples_seen",
    "flops",
    "value",
    "loss",
    "error",
    "accuracy",
)
_AT_LEAST_ONE = ("params", "params_encoder", "params_total", "samples_seen")
# A row has one measurement or another, and nobody knows how many images a stream holds.
_MAY_BE_BLANK = ("value", "loss", "error", "accuracy", "unique_images")


def load_points(path: Path | str, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read a CSV, Parquet or JSON table (a list of objects, or one object of lists).

    `columns` maps our names to the file's, such as `{"params": "Model Size"}`; other columns keep their names. Errors
    are made of accuracies by `{"error": "1-acc1"}`. Rows are labelled from 1, and `attrs["columns"]` of the table
    keeps the renaming. Raises `ValueError` naming the file, the row and the column of the first cell that cannot be.
    """
    return check_points(Path(path), read_renamed(Path(path), columns))


def read_renamed(path: Path, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """What `load_points` reads, its cells not checked yet: rows that nobody asks for may hold anything."""
    table = _read(path)
    table.columns = [str(name) for name in table.columns]
    table.index = pd.RangeIndex(1, len(table) + 1, name="row")
    columns = dict(columns or {})
    for ours, theirs in columns.items():
        accuracy = theirs.removeprefix("1-").strip()
        if theirs not in table and theirs.startswith("1-") and accuracy in table:
            table[theirs] = 1 - _accuracies(path, accuracy, table[accuracy])
        if theirs not in table:
            raise ValueError(f"{path} has no column {theirs!r} for {ours}; there are {', '.join(table.columns)}")
        if ours != theirs and ours in table and ours not in columns.values():
            raise ValueError(f"{path}: column {theirs!r} is to be {ours}, but there is another column {ours}")
    table = table.rename(columns={theirs: ours for ours, theirs in columns.items()})
    table.attrs["columns"] = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    repeated = table.columns[table.columns.duplicated()]
    if len(repeated):
        raise ValueError(f"{path}: column {repeated[0]!r} is there twice")
    if table.empty:
        raise ValueError(f"{path} has no rows")
    return table


def check_points(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The table with its known columns as numbers. Raises `ValueError` as `load_points` does."""
    known = [name for name in NUMBERS if name in table]
    return table.assign(**{name: _checked(path, name, table[name], blanks=name in _MAY_BE_BLANK) for name in known})


def learning_curve(run_dir: Path | str) -> pd.DataFrame:
    """The points inside one run, from its metrics.jsonl: `run, step, samples_seen, loss, val_loss` and the run's sizes.

    `params_encoder`, `params_total`, `unique_images`, `objective` and `seed` are added where result.json has them.
    Lines without a finite loss are left out; a last line cut by a crash is too. Raises `ValueError` naming file and
    line.
    """
    run_dir = Path(run_dir)
    path = run_dir / "metrics.jsonl"
    if not path.is_file():
        raise ValueError(f"{path} is missing: {run_dir} is no run folder, or its run has not started")
    rows = [row for row in _metric_lines(path) if row.get("loss") is not None or row.get("val_loss") is not None]
    if not rows:
        raise ValueError(f"{path} holds no line with a loss")
    names = ["step", "samples_seen", "loss", "val_loss"]
    table = pd.DataFrame(rows).reindex(columns=names).apply(pd.to_numeric, errors="coerce")
    table.insert(0, "run", run_dir.name)
    result = run_dir / "result.json"
    if result.is_file():
        known = json.loads(result.read_text(encoding="utf-8"))
        for name in ("objective", "params_encoder", "params_total", "unique_images", "seed"):
            if name in known:
                table[name] = known[name]
    return table


def _metric_lines(path: Path) -> list[dict[str, object]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path} line {number} is not valid JSON ({error.msg}); remove that line") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path} line {number} is no JSON object; remove that line")
        rows.append(row)
    return rows


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    kind = path.suffix.lower()
    try:
        if kind in (".csv", ".tsv"):
            return pd.read_csv(path, sep="," if kind == ".csv" else "\t")
        if kind == ".json":
            return pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
        if kind in (".parquet", ".pq"):
            return pd.read_parquet(path)
    except ImportError as error:
        raise ValueError(f"{path}: Parquet needs pyarrow: pip install pyarrow, or save the table as CSV") from error
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not a readable {kind[1:]} table ({' '.join(str(error).split())})") from error
    raise ValueError(f"{path}: {kind or 'no ending'} is no known kind of table; use .csv, .tsv, .json or .parquet")


def _accuracies(path: Path, name: str, cells: pd.Series) -> pd.Series:
    """One column of accuracies, fractions."""
    numbers = _checked(path, name, cells, blanks=True)
    if (numbers > 1).any():
        raise ValueError(f"{path}, column {name} reaches {numbers.max():g}: per cent? Divide it by 100")
    return numbers


def _checked(path: Path, name: str, cells: pd.Series, *, blanks: bool) -> pd.Series:
    """One numeric column; `blanks` are allowed where another measurement may stand in the row."""
    numbers = pd.to_numeric(cells, errors="coerce").astype(np.float64)
    for wrong, why in (
        (numbers.isna() & cells.notna(), "is not a number"),
        (np.isinf(numbers), "is not finite"),
        (numbers < (1 if name in _AT_LEAST_ONE else 0), "is too small"),
        (numbers.isna() & (not blanks), "is blank"),
    ):
        if wrong.any():
            row = cells.index[wrong][0]
            cell = cells[row].item() if isinstance(cells[row], np.generic) else cells[row]
            raise ValueError(f"{path}, row {row}, column {name}: {cell!r} {why}")
    return numbers
