"""A whole study fitted: every curve is there, fitted or refused, and equal points give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scaling_studies import commands
from scaling_studies.statements import efficiency_statement
from scaling_studies.study import fit_study

Rows = Callable[..., list[dict[str, Any]]]
Table = Callable[[list[dict[str, Any]]], pd.DataFrame]


def test_a_study_recovers_the_sample_efficiency_behind_its_points(study: Path) -> None:
    fits = json.loads((study / "fits.json").read_text())
    rows = [row for row in fits["efficiency"] if row.get("at") == "middle" and row["x"] == "unique_images"]
    assert [row["preset"] for row in rows] == ["nano", "micro", "mini"]
    for row in rows:
        assert (row["method_1"], row["method_2"]) == ("xtra", "aim")
        # The truth is 3; 20,000 test images leave about 10% at one standard error.
        assert row["ratio"] == pytest.approx(3.0, rel=0.4)
        assert row["low"] < 3.0 < row["high"]


def test_a_curve_with_too_few_points_is_there_with_its_reason(study: Path) -> None:
    fits = json.loads((study / "fits.json").read_text())
    refused = [curve for curve in fits["curves"] if curve["status"] == "refused"]
    assert {(curve["objective"], curve["x"]) for curve in refused} == {
        ("xtra", "params_encoder"),
        ("aim", "params_encoder"),
    }
    for curve in refused:
        assert curve["reason"] == "not enough points: 3 distinct params_encoder, a saturating power law needs 4"
    (row,) = [row for row in fits["efficiency"] if row["x"] == "params_encoder"]
    assert row["status"] == "not fitted"


def test_the_same_points_give_the_same_bytes(curve_rows: Rows, table: Table, tmp_path: Path) -> None:
    written = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        table(curve_rows()).to_csv(folder / "points.csv", index=False)
        written.append(commands.fit(folder).read_bytes())
    assert written[0] == written[1]


def test_a_curve_added_leaves_the_others_as_they_were(curve_rows: Rows, table: Table) -> None:
    alone = fit_study(table(curve_rows()))
    both = fit_study(table(curve_rows("aim", images=(100, 1_000)) + curve_rows()))
    (before,) = [curve for curve in alone["curves"] if curve["preset"]]
    (after,) = [curve for curve in both["curves"] if curve["preset"] and curve["objective"] == "xtra"]
    assert before == after


def test_a_preset_that_one_method_lacks_is_a_curve_without_a_pair(curve_rows: Rows, table: Table) -> None:
    fits = fit_study(table(curve_rows(images=(100, 1_000)) + curve_rows("aim", "micro", images=(100, 1_000))))
    assert [(curve["objective"], curve["preset"]) for curve in fits["curves"] if curve["preset"]] == [
        ("xtra", "nano"),
        ("aim", "micro"),
    ]
    assert {row["preset"] for row in fits["efficiency"]} == {None}


def test_methods_that_saw_different_numbers_of_samples_are_told_apart(curve_rows: Rows, table: Table) -> None:
    fits = fit_study(table(curve_rows(images=(100,)) + curve_rows("aim", images=(100,), samples_seen=50_000)))
    for row in fits["efficiency"]:
        assert row["notes"] == ["samples_seen differ: xtra 100,000, aim 50,000"]
        assert "Not a like-for-like comparison: samples_seen differ" in efficiency_statement(row)


def test_curves_that_never_meet_are_not_reached(curve_rows: Rows, table: Table) -> None:
    far = [
        row | {"value": row["value"] / 20, "value_low": 0.0, "value_high": 0.1, "objective": "aim", "name": f"aim{i}"}
        for i, row in enumerate(curve_rows())
    ]
    fits = fit_study(table(curve_rows() + far))
    (row,) = [row for row in fits["efficiency"] if row["x"] == "unique_images"]
    assert row["status"] == "not reached"
    assert row["reason"].startswith("not reached within the data: XTRA's fitted error goes from ")


def test_a_study_of_references_alone_is_refused(row: Callable[..., dict[str, Any]], table: Table) -> None:
    with pytest.raises(ValueError, match="no trained run has a result yet"):
        fit_study(table([row("u", kind="untrained"), row("r", kind="raw_pixels", objective="raw_pixels")]))
