"""The four steps: their order, what they say out of order, and what they import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

import scaling_studies
from scaling_studies import commands
from scaling_studies.curves import standard_error
from scaling_studies.points import points_table, write_points

Rows = Callable[..., list[dict[str, Any]]]
Table = Callable[[list[dict[str, Any]]], pd.DataFrame]


@pytest.mark.parametrize("step", [commands.fit, commands.plot, commands.report])
def test_without_points_every_step_asks_to_collect_first(tmp_path: Path, step: Callable[[Path], object]) -> None:
    with pytest.raises(ValueError, match="points.csv is missing: run `arvis-scale study collect .*` first"):
        step(tmp_path)


@pytest.mark.parametrize("step", [commands.plot, commands.report])
def test_without_fits_later_steps_ask_to_fit_first(
    tmp_path: Path, curve_rows: Rows, table: Table, step: Callable[[Path], object]
) -> None:
    table(curve_rows()).to_csv(tmp_path / "points.csv", index=False)
    with pytest.raises(ValueError, match="fits.json is missing: run `arvis-scale study fit .*` first"):
        step(tmp_path)


@pytest.mark.parametrize("step", [commands.plot, commands.report])
def test_fits_of_other_points_are_refused(
    tmp_path: Path, curve_rows: Rows, table: Table, step: Callable[[Path], object]
) -> None:
    table(curve_rows(images=(100,))).to_csv(tmp_path / "points.csv", index=False)
    commands.fit(tmp_path)
    table(curve_rows(images=(100, 1_000))).to_csv(tmp_path / "points.csv", index=False)
    with pytest.raises(ValueError, match="was fitted to other points: run `arvis-scale study fit .*` again"):
        step(tmp_path)


@pytest.mark.parametrize("step", [commands.plot, commands.report])
def test_fits_of_an_earlier_schema_are_fitted_again(
    tmp_path: Path, curve_rows: Rows, table: Table, step: Callable[[Path], object]
) -> None:
    """Rows of another shape ended a report in a KeyError."""
    table(curve_rows(images=(100,))).to_csv(tmp_path / "points.csv", index=False)
    fits = json.loads(commands.fit(tmp_path).read_text())
    assert fits["schema_version"] == 3
    (tmp_path / "fits.json").write_text(json.dumps(fits | {"schema_version": 2}))
    with pytest.raises(ValueError, match="is of an earlier version: run `arvis-scale study fit .*` again"):
        step(tmp_path)


def test_a_study_is_fitted_drawn_and_reported_by_the_errors_of_another_probe(curve_rows: Rows, tmp_path: Path) -> None:
    rows = [row | {"error_attentive": round(row["value"] / 2, 4)} for row in curve_rows()]
    points = points_table([*rows, *curve_rows("aim", images=(100,))])
    write_points(tmp_path / "points.csv", points)
    commands.fit(tmp_path, y="error_attentive")
    fits = json.loads((tmp_path / "fits.json").read_text())
    assert fits["metric"] == "attentive_probe_error"
    fitted = next(curve for curve in fits["curves"] if curve["x"] == "unique_images")
    residuals = {one["run"]: (one["value"], one["sigma"]) for one in fitted["residuals"]}
    errors = np.array([row["error_attentive"] for row in rows])
    expected = zip(errors, standard_error(errors, np.full(len(rows), 10_000)), strict=True)
    assert residuals == {row["name"]: pytest.approx(each) for row, each in zip(rows, expected, strict=True)}

    text = commands.report(tmp_path).read_text()
    assert "Errors are attentive-probe errors" in text
    assert "aim-nano-u100 (completed: no error_attentive)" in text
    assert "linear" not in text
    cover = json.loads((tmp_path / "figures" / "cover.json").read_text())
    assert cover["y_label"] == "attentive-probe error (%)"
    (series,) = cover["panels"][0]["series"]
    ends = [binomtest(round(1e4 * error), 10_000).proportion_ci(0.95, method="wilson") for error in errors]
    assert series["low"] == pytest.approx([end.low for end in ends], abs=1e-6)
    assert series["high"] == pytest.approx([end.high for end in ends], abs=1e-6)

    with pytest.raises(ValueError, match="no trained run has a result yet with error_knn"):
        commands.fit(tmp_path, y="error_knn")
    with pytest.raises(ValueError, match="y 'accuracy' is none of error, error_attentive, error_knn"):
        commands.fit(tmp_path, y="accuracy")


def test_importing_the_commands_imports_no_training_package() -> None:
    code = (
        "import sys, scaling_studies.commands; print([m for m in ('torch', 'deepspeed', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_uses_nothing_of_arvis_scale_but_its_files_and_version() -> None:
    found = set()
    for file in Path(scaling_studies.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name for name in found if name.split(".")[0] == "arvis_scale"}
    allowed = {name for name in ours if name == "arvis_scale.__version__" or name.startswith("arvis_scale.atomic.")}
    assert ours
    assert ours == allowed
