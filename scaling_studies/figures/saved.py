"""The figures of a study as files, with an index that says of which points and fits they are.

`index.json` (schema 1): `drawn_from` (a hash of points, fits and version), `drawn` (per figure its width in inches),
`left_out` (per figure that the data do not hold the reason).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from arvis_scale import __version__
from arvis_scale.atomic import read_json, write_json
from scaling_studies.figures.drawing import SUFFIXES
from scaling_studies.figures.study import FIGURES, Fits, draw_study

INDEX = "index.json"
INDEX_SCHEMA = 1


@dataclass(frozen=True)
class SavedFigure:
    """A figure as `save_figures` wrote it: its `svg`, its `width` in inches, the sentences under it."""

    name: str
    svg: bytes
    width: float
    warnings: list[str]


@dataclass(frozen=True)
class SavedFigures:
    """The figures of a folder in the order of `FIGURES`, and per figure that the data do not hold the reason."""

    drawn: list[SavedFigure]
    left_out: dict[str, str]


def save_figures(points: pd.DataFrame, fits: Fits, folder: Path) -> list[Path]:
    """Draw every figure and write it to `folder` as PNG, SVG, PDF and JSON; returns the paths.

    Those of an earlier drawing that the data no longer hold are removed.
    """
    found = draw_study(points, fits)
    # Until all figures are written, no index says of which points and fits they are.
    (folder / INDEX).unlink(missing_ok=True)
    paths = [path for name, drawing in found.drawings.items() for path in drawing.save(folder / name)]
    for name in found.left_out:
        for suffix in (*SUFFIXES, "json"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)
    widths = {name: float(drawing.figure.get_figwidth()) for name, drawing in found.drawings.items()}
    index = {"schema_version": INDEX_SCHEMA, "drawn_from": _drawn_from(points, fits), "drawn": widths}
    write_json(folder / INDEX, index | {"left_out": found.left_out})
    return paths


def saved_figures(points: pd.DataFrame, fits: Fits, folder: Path) -> SavedFigures:
    """The figures in `folder`; where it has none of these points and fits, they are drawn first."""
    if not _is_current(points, fits, folder):
        save_figures(points, fits, folder)
    index = read_json(folder / INDEX, newest_schema=INDEX_SCHEMA)
    drawn = []
    for name in FIGURES:
        if name in index["drawn"]:
            warnings = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["warnings"]
            svg = (folder / f"{name}.svg").read_bytes()
            drawn.append(SavedFigure(name, svg, index["drawn"][name], warnings))
    return SavedFigures(drawn, index["left_out"])


def _is_current(points: pd.DataFrame, fits: Fits, folder: Path) -> bool:
    """Whether `folder` holds every file of the figures of these points and fits."""
    if not (folder / INDEX).is_file():
        return False
    index = read_json(folder / INDEX, newest_schema=INDEX_SCHEMA)
    files = [folder / f"{name}.{suffix}" for name in index.get("drawn", ()) for suffix in (*SUFFIXES, "json")]
    return index.get("drawn_from") == _drawn_from(points, fits) and all(file.is_file() for file in files)


def _drawn_from(points: pd.DataFrame, fits: Fits) -> str:
    parts = (points.to_csv(index=False), json.dumps(fits, sort_keys=True), __version__)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
