"""The four steps of a study, each from files to files: what `arvis-scale study ...` calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from arvis_scale.atomic import read_json, write_json, write_text
from scaling_studies import collect as collecting
from scaling_studies.figures import save_figures
from scaling_studies.points import missing_runs, read_points, write_points
from scaling_studies.report import render_report
from scaling_studies.study import FITS_SCHEMA, fit_study


def collect(study_dir: Path) -> Path:
    """Write STUDY/points.csv from the run folders; returns its path. Raises `ValueError` when there are none."""
    path = study_dir / "points.csv"
    write_points(path, collecting.collect(study_dir))
    return path


def fit(study_dir: Path) -> Path:
    """Write STUDY/fits.json from points.csv; returns its path."""
    path = study_dir / "fits.json"
    write_json(path, fit_study(_points(study_dir)))
    return path


def plot(study_dir: Path) -> list[Path]:
    """Write STUDY/figures/ from points.csv and fits.json; returns the paths of the figures."""
    return save_figures(_points(study_dir), _fits(study_dir), study_dir / "figures")


def report(study_dir: Path) -> Path:
    """Write STUDY/report.html from points.csv, fits.json and the sweep's commands; returns its path."""
    path = study_dir / "report.html"
    write_text(path, render_report(study_dir, _points(study_dir), _fits(study_dir)))
    return path


def unmeasured(study_dir: Path) -> list[str]:
    """One phrase per run of points.csv without a value: its name, its status and why."""
    return missing_runs(_points(study_dir))


def _points(study_dir: Path) -> pd.DataFrame:
    _need(study_dir / "points.csv", "collect")
    return read_points(study_dir / "points.csv")


def _fits(study_dir: Path) -> dict[str, Any]:
    _need(study_dir / "fits.json", "fit")
    return read_json(study_dir / "fits.json", newest_schema=FITS_SCHEMA)


def _need(file: Path, step: str) -> None:
    if not file.is_file():
        raise ValueError(f"{file} is missing: run `arvis-scale study {step} {file.parent}` first")
