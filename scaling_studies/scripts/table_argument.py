"""What the scripts share: the table that the command line names, the rows of it that are drawn, the files that are
written, mistakes in one line.

    python -m scaling_studies.scripts.SCRIPT [POINTS.csv] [--column OURS=THEIRS] [--where COLUMN=VALUE]

They are those of the command line: `error=1-accuracy` makes errors of accuracies.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from scaling_studies.figures import Drawing
from scaling_studies.statements import count, method_order
from scaling_studies.table_commands import read_table


def run(main: Callable[[], None]) -> None:
    """Run a script; a `ValueError` is the user's to mend and ends as one line and status 2."""
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def write(drawing: Drawing, stem: str) -> None:
    """Save the figure, and print what stands under it and its files."""
    for line in (*drawing.warnings, *drawing.save(stem)):
        print(line)


def read_points(example: pd.DataFrame, *needed: str) -> pd.DataFrame:
    """The table on the command line, or `example` without one; rows that are blank in a `needed` column are left out.

    Raises `ValueError` where such a column is missing or no row has all of them.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("table", nargs="?", type=Path, help=".csv, .tsv, .json or .parquet; without, simulated points")
    parser.add_argument("--column", action="append", metavar="OURS=THEIRS", help="such as error=1-accuracy")
    parser.add_argument("--where", action="append", metavar="COLUMN=VALUE", help="only these rows; COLUMN!=VALUE too")
    given = parser.parse_args()
    if given.table is None:
        if given.column or given.where:
            raise ValueError("--column and --where are of a table: name it first")
        return example
    points = read_table(given.table, given.column, given.where)
    if missing := [name for name in needed if name not in points]:
        options = " ".join(f"--column {name}=THEIRS" for name in missing)
        options += " (error=1-THEIRS of accuracies)" if "error" in missing else ""
        raise ValueError(
            f"{given.table} has no column {', '.join(missing)}, which this figure draws: name it by {options}; "
            f"there are {', '.join(map(str, points))}"
        )
    full = points.dropna(subset=list(needed))
    if full.empty:
        raise ValueError(f"{given.table}: no row has all of {', '.join(needed)}")
    if len(full) < len(points):
        print(f"{len(points) - len(full)} of {len(points)} rows lack one of {', '.join(needed)}: left out")
    return full


def with_most_rows(points: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows of the most frequent value of `column`; of equals the largest number, or ours before its rivals.

    All rows where there is no such column. What is left out is said.
    """
    if column not in points:
        return points
    counts = points[column].value_counts()
    equals = counts.index[counts == counts.max()]
    is_number = pd.api.types.is_numeric_dtype(points[column])
    value = max(equals) if is_number else min(equals, key=lambda name: method_order(str(name)))
    rows = points[points[column] == value]
    if len(counts) > 1:
        shown = count(value) if is_number else value
        print(f"{column} {shown}: {len(rows)} of {len(points)} rows (--where {column}=... picks another)")
    return rows


def by_method(points: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of every value of column `objective`, ours before its rivals; of `all` where there is no such column."""
    if "objective" not in points:
        return {"all": points}
    names = sorted(points["objective"].astype(str).unique(), key=method_order)
    return {name: points[points["objective"].astype(str) == name] for name in names}


def two_methods(points: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """`by_method` where there are two; raises `ValueError` that says how to have two where there are not."""
    methods = by_method(points)
    if len(methods) == 2:
        return methods
    if "objective" not in points:
        raise ValueError("two methods are compared: name the column that tells them apart by --column objective=THEIRS")
    raise ValueError(
        f"two methods are compared, column objective has {len(methods)} ({', '.join(map(str, methods))}): "
        "leave the others out by --where 'objective!=...'"
    )
