"""Manifests: CSV or Parquet tables that name image files and say what each of them is."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arvis_scale.data.annotations import Annotation, normal_label
from arvis_scale.data.index import SkippedImage
from arvis_scale.data.layout import SPLITS

MANIFEST_SUFFIXES = (".csv", ".parquet")
COLUMNS = ("path", "label", "caption", "split")


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One image: its row, where it is (absolute, or relative to the manifest), what is said about it."""

    number: int
    file: str
    annotation: Annotation


def read_manifest(path: Path, columns: Mapping[str, str]) -> tuple[list[ManifestRow], list[SkippedImage]]:
    """Read the rows of a `.csv` (UTF-8, with a header) or `.parquet` file; bad rows come back named by their number.

    Columns are `path` and, where there are any, `label`, `caption` and `split` (`train`, `val`, `test`; else all is
    `train`); `columns` maps these to other names. Rows are numbered from 1, the header not counted. Raises
    `ValueError` for a column that is not there and for a file that cannot be read as a table.
    """
    unknown = sorted(set(columns) - set(COLUMNS))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no column of a manifest; name one of {', '.join(COLUMNS)}")
    names, table = _parquet(path, columns) if path.suffix.lower() == ".parquet" else _csv(path)
    for column in ("path", *columns):
        if columns.get(column, column) not in names:
            raise ValueError(f"{path} has no column {columns.get(column, column)!r}; it has {', '.join(names)}")
    rows: list[ManifestRow] = []
    skipped: list[SkippedImage] = []
    seen: set[str] = set()
    for number, values in enumerate(table, start=1):
        cells = {column: values.get(columns.get(column, column)) for column in COLUMNS}
        fault = "has more cells than the header" if None in values else _fault(cells)
        if fault is None and str(cells["path"]) in seen:
            fault = f"names {cells['path']} again"
        if fault is not None:
            skipped.append(SkippedImage(f"row {number}", fault))
            continue
        rows.append(_row(number, cells))
        seen.add(rows[-1].file)
    return rows, skipped


def _fault(cells: dict[str, Any]) -> str | None:
    """What is wrong with a row, or None."""
    if not isinstance(cells["path"], str) or not cells["path"].strip():
        return "names no image"
    if "\0" in cells["path"]:
        return f"names {cells['path']!r}, which cannot be a file"
    label = cells["label"]
    if isinstance(label, bool) or not isinstance(label, str | int | float | None):
        return f"has the label {label!r}, which is neither a name nor a whole number"
    if isinstance(label, int | float) and (label < 0 or label != label // 1):
        return f"has the label {label}, which is no class number"
    if not isinstance(cells["caption"], str | None):
        return f"has the caption {cells['caption']!r}, which is no text"
    if cells["split"] not in (None, "", *SPLITS):
        return f"has the split {cells['split']!r}, which is none of {', '.join(SPLITS)}"
    return None


def _row(number: int, cells: dict[str, Any]) -> ManifestRow:
    file, split = cells["path"], cells["split"] or "train"
    label = "" if cells["label"] is None else normal_label(_text(cells["label"]))
    return ManifestRow(
        number, file, Annotation(split, label or None, cells["caption"] or None, f"{split}/{file.lstrip('./')}")
    )


def _text(label: str | float) -> str:
    """A table with gaps holds whole numbers as floating-point ones."""
    return str(int(label)) if isinstance(label, float) else str(label)


def _csv(path: Path) -> tuple[list[str], Iterator[dict[Any, Any]]]:
    def rows() -> Iterator[dict[Any, Any]]:
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield from csv.DictReader(file, strict=True)
        except (csv.Error, UnicodeDecodeError, OSError) as error:
            raise ValueError(f"{path} cannot be read as CSV in UTF-8 ({error}); mend it") from error

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file), [])
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} cannot be read as CSV in UTF-8 ({error}); mend it") from error
    return names, rows()


def _parquet(path: Path, columns: Mapping[str, str]) -> tuple[list[str], Iterator[dict[Any, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(f"{path} needs pyarrow to be read; pip install pyarrow, or write the table as CSV") from error
    try:
        table = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet ({error}); write it again") from error
    names = list(table.schema_arrow.names)
    wanted = [name for column in COLUMNS if (name := columns.get(column, column)) in names]

    def rows() -> Iterator[dict[Any, Any]]:
        for batch in table.iter_batches(columns=wanted):
            yield from batch.to_pylist()

    return names, rows()
