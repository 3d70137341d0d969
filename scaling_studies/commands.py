"""The four steps of a study, each from files to files: what `arvis-scale study ...` calls."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from arvis_scale.atomic import read_json, write_json
from scaling_studies import collect as collecting
from scaling_studies.figures import save_figures
from scaling_studies.points import of_metric, read_points, write_points
from scaling_studies.provenance import PART_NAME, PART_SCHEMA
from scaling_studies.report import write_report
from scaling_studies.study import FITS_SCHEMA, LAW, Y, fit_study


def collect(study_dir: Path, methods: Sequence[str] = (), output: Path | None = None) -> Path:
    """Write STUDY/points.csv from the run folders; returns its path. Raises `ValueError` when there are none.

    `methods`: these alone (none: all), and raw pixels, into the folder `output`: a part that is fitted, plotted and
    reported like a study.
    """
    points = collecting.collect(study_dir)
    if methods:
        if output is None or output.resolve() == study_dir.resolve():
            raise ValueError("a part of a study needs a folder of its own: give --output with --method")
        points = collecting.of_methods(points, methods)
    folder = output or study_dir
    folder.mkdir(parents=True, exist_ok=True)
    if methods:
        part = {"schema_version": PART_SCHEMA, "study": str(study_dir), "methods": list(methods)}
        write_json(folder / PART_NAME, part)
    write_points(folder / "points.csv", points)
    return folder / "points.csv"


def fit(study_dir: Path, law: str = LAW, y: str = Y) -> Path:
    """Write STUDY/fits.json, all curves of the errors `y` fitted with `law`, from points.csv; returns its path."""
    path, points = study_dir / "fits.json", _points(study_dir)
    write_json(path, fit_study(points, law, y) | {"points_sha256": _sha256(points)})
    return path


def plot(study_dir: Path) -> list[Path]:
    """Write STUDY/figures/ from points.csv and fits.json; returns the paths of the figures."""
    return save_figures(*_fitted(study_dir), study_dir / "figures")


def report(study_dir: Path) -> Path:
    """Write STUDY/report.html, and report.md beside it, with what `plot` drew or would; returns the page's path."""
    return write_report(study_dir, *_fitted(study_dir))[0]


def _points(study_dir: Path) -> pd.DataFrame:
    _need(study_dir / "points.csv", "collect")
    return read_points(study_dir / "points.csv")


def _fitted(study_dir: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The points, with the errors that were fitted as their value, and the fits."""
    points, file = _points(study_dir), study_dir / "fits.json"
    _need(file, "fit")
    fits = read_json(file, newest_schema=FITS_SCHEMA)
    if fits["schema_version"] != FITS_SCHEMA:
        raise ValueError(f"{file} is of an earlier version: run `arvis-scale study fit {study_dir}` again")
    if fits.get("points_sha256") != _sha256(points):
        raise ValueError(f"{file} was fitted to other points: run `arvis-scale study fit {study_dir}` again")
    return of_metric(points, fits["metric"]), fits


def _sha256(points: pd.DataFrame) -> str:
    return hashlib.sha256(points.to_csv(index=False).encode()).hexdigest()


def _need(file: Path, step: str) -> None:
    if file.parent.is_file():
        raise ValueError(f"{file.parent} is no study folder; of a table: python -m scaling_studies.scripts.plot_...")
    if not file.is_file():
        raise ValueError(f"{file} is missing: run `arvis-scale study {step} {file.parent}` first")
