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
    """One image: where it is (absolute, or relative to the manifest), how reports name it, what is said about it."""

    file: str
    named: str
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
    missing = [name for name in {"path": "path", **columns}.values() if columns.get("path", name) and name not in names]
    if "path" in columns and "path" in missing:
        missing.remove("path")
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}; it has {', '.join(names)}")
    rows: list[ManifestRow] = []
    skipped: list[SkippedImage] = []
    seen: set[str] = set()
    for number, values in enumerate(table, start=1):
        cells = {column: values.get(columns.get(column, column)) for column in COLUMNS}
        fault = "has more cells than the header" if None in values else _fault(cells)
        if fault is None and str(cells["path"]) in seen:
            fault = f"names {cells['path']} again"
        if fault is not None:
            skipped.append(SkippedImage(f"{path.name} row {number}", fault))
            continue
        row = _row(path, number, cells)
        seen.add(row.file)
        rows.append(row)
    return rows, skipped


def _fault(cells: dict[str, Any]) -> str | None:
    """What is wrong with a row, or None."""
    if not isinstance(cells["path"], str) or not cells["path"].strip():
        return "names no image"
    if "\0" in cells["path"]:
        return f"names {cells['path']!r}, which cannot be a file"
    if isinstance(cells["label"], bool) or not isinstance(cells["label"], str | int | None):
        return f"has the label {cells['label']!r}, which is neither a name nor a whole number"
    if isinstance(cells["label"], int) and cells["label"] < 0:
        return f"has the label {cells['label']}, which is no class number"
    if not isinstance(cells["caption"], str | None):
        return f"has the caption {cells['caption']!r}, which is no text"
    if cells["split"] not in (None, "", *SPLITS):
        return f"has the split {cells['split']!r}, which is none of {', '.join(SPLITS)}"
    return None


def _row(path: Path, number: int, cells: dict[str, Any]) -> ManifestRow:
    file, split = cells["path"], cells["split"] or "train"
    label = normal_label(str(cells["label"])) if cells["label"] is not None else ""
    annotation = Annotation(split, label or None, cells["caption"] or None, f"{split}/{file.lstrip('./')}")
    return ManifestRow(file, f"{path.name} row {number}: {file}", annotation)


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
