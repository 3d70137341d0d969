"""The four steps: their order, what they say out of order, and what they import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import scaling_studies
from scaling_studies import commands

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


def test_unmeasured_runs_are_told_after_collecting(study: Path) -> None:
    assert commands.unmeasured(study) == [
        "digpt-micro-u1000 (failed: loss is <b>NaN</b> & stays so)",
        "xtra-midi-u1000 (pending: never started)",
    ]


def test_fits_say_their_schema_version(study: Path) -> None:
    assert json.loads((study / "fits.json").read_text())["schema_version"] == 2


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
