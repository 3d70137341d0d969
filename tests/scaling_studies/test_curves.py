"""Which runs make a curve, and what is said about those that do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scaling_studies.curves import (
    Curve,
    curves_over_params,
    curves_over_samples_seen,
    curves_over_unique_images,
    standard_error,
)

Rows = Callable[..., list[dict[str, Any]]]
Table = Callable[[list[dict[str, Any]]], pd.DataFrame]


def only(curves: list[Curve]) -> Curve:
    (curve,) = curves
    return curve


def test_the_largest_samples_seen_with_enough_points_makes_the_curve(curve_rows: Rows, table: Table) -> None:
    rows = curve_rows(samples_seen=1_000) + curve_rows(samples_seen=2_000)
    rows += curve_rows(images=(100, 1_000), samples_seen=3_000)
    curve = only(curves_over_unique_images(table(rows), 4))
    assert curve.held == {"samples_seen": 2_000}
    assert curve.samples_seen == (2_000, 2_000)
    assert len(curve.points) == 4
    assert any("left out: 1,000, 3,000" in note for note in curve.notes)


def test_fixed_epochs_make_a_curve_that_says_so(row: Callable[..., dict[str, Any]], table: Table) -> None:
    rows = [row(f"u{n}", unique_images=n, samples_seen=10 * n) for n in (100, 1_000, 10_000, 100_000)]
    curve = only(curves_over_unique_images(table(rows), 4))
    assert curve.held == {}
    assert curve.samples_seen == (1_000, 1_000_000)
    assert any("samples_seen changes along this curve, from 1,000 to 1,000,000" in note for note in curve.notes)


def test_seeds_are_points_of_one_curve_without_a_note(curve_rows: Rows, table: Table) -> None:
    curve = only(curves_over_unique_images(table(curve_rows(seed=0) + curve_rows(seed=1)), 4))
    assert len(curve.points) == 8
    assert curve.notes == []


def test_runs_that_only_something_else_tells_apart_are_named(curve_rows: Rows, table: Table) -> None:
    curve = only(curves_over_unique_images(table(curve_rows() + curve_rows(images=(1_000,), strategy="zero3")), 4))
    assert any("xtra-nano-u1000, xtra-nano-u1000zero3" in note for note in curve.notes)


def test_over_parameters_the_largest_set_with_enough_sizes_is_held(curve_rows: Rows, table: Table) -> None:
    rows = [row for preset in ("nano", "micro", "mini", "midi") for row in curve_rows(preset=preset, images=(10, 100))]
    rows += curve_rows(preset="midi", images=(1_000,))
    curve = only(curves_over_params(table(rows), 4))
    assert curve.held == {"unique_images": 100, "samples_seen": 100_000}
    assert list(curve.points["params_encoder"]) == [30_000, 210_000, 1_200_000, 2_700_000]


def test_other_numbers_of_samples_on_one_set_make_a_curve_of_their_own(curve_rows: Rows, table: Table) -> None:
    rows = [row for seen in (1_000, 2_000, 4_000, 8_000) for row in curve_rows(images=(10, 100), samples_seen=seen)]
    curve = only(curves_over_samples_seen(table(rows), 4))
    assert (curve.x, curve.held) == ("samples_seen", {"unique_images": 100})
    assert list(curve.points["samples_seen"]) == [1_000, 2_000, 4_000, 8_000]
    assert curves_over_samples_seen(table(curve_rows()), 4) == []


def test_runs_from_streams_are_on_curves_over_samples_and_parameters_only(curve_rows: Rows, table: Table) -> None:
    streamed: dict[str, Any] = {"images": (1_000,), "pretrain_data": "stream@0123456789ab"}
    rows = [
        row | {"unique_images": None}
        for preset in ("nano", "micro", "mini", "midi")
        for seen in (1_000, 2_000, 4_000, 8_000)
        for row in curve_rows(preset=preset, samples_seen=seen, **streamed)
    ]
    points = table(rows)
    assert curves_over_unique_images(points, 4) == []
    curves = curves_over_samples_seen(points, 4)
    assert [(curve.preset, curve.held, len(curve.points)) for curve in curves] == [
        (preset, {"unique_images": None}, 4) for preset in ("nano", "micro", "mini", "midi")
    ]
    over_params = only(curves_over_params(points, 4))
    assert over_params.held == {"unique_images": None, "samples_seen": 8_000}
    assert list(over_params.points["params_encoder"]) == [30_000, 210_000, 1_200_000, 2_700_000]


def test_a_known_set_with_enough_points_goes_before_streams(curve_rows: Rows, table: Table) -> None:
    rows = [row for seen in (1_000, 2_000, 4_000, 8_000) for row in curve_rows(images=(10,), samples_seen=seen)]
    streamed = [row | {"name": f"{row['name']}-streamed", "unique_images": None} for row in rows]
    curve = only(curves_over_samples_seen(table(rows + streamed), 4))
    assert curve.held == {"unique_images": 10}
    assert list(curve.points["name"]) == [row["name"] for row in rows]
    curve = only(curves_over_samples_seen(table(rows[:2] + streamed), 4))
    assert curve.held == {"unique_images": None}


def test_a_run_that_lost_its_cell_is_on_no_curve(curve_rows: Rows, table: Table) -> None:
    lost = curve_rows(cell="c", chosen=False, val_loss=2.0)
    curve = only(curves_over_unique_images(table(curve_rows() + lost), 4))
    assert len(curve.points) == 4
    assert curve.notes == []


def test_rows_of_others_are_on_no_curve(curve_rows: Rows, row: Callable[..., dict[str, Any]], table: Table) -> None:
    others = row("AIM", kind="imported", source="arXiv 2401.08541", probe_data=None, num_test=None)
    assert len(only(curves_over_unique_images(table([*curve_rows(), others]), 4)).points) == 4


@pytest.mark.parametrize("error", [0.0, 1.0])
def test_standard_error_is_above_zero_at_the_ends(error: float) -> None:
    (value,) = standard_error(np.array([error]), np.array([100.0]))
    # Two of 104: sqrt(2 * 102 / 104^3).
    assert value == pytest.approx(np.sqrt(2 * 102 / 104**3))


def test_standard_error_of_many_images_is_the_binomial_one() -> None:
    (value,) = standard_error(np.array([0.3]), np.array([1e8]))
    assert value == pytest.approx(np.sqrt(0.3 * 0.7 / 1e8), rel=1e-6)


def test_references_and_missing_runs_are_on_no_curve(
    curve_rows: Rows, row: Callable[..., dict[str, Any]], table: Table
) -> None:
    rows = [*curve_rows(), row("untrained", kind="untrained"), {"name": "gone", "status": "failed"}]
    assert set(only(curves_over_unique_images(table(rows), 4)).points["kind"]) == {"trained"}


@pytest.mark.parametrize("column", ["probe_data", "pretrain_data"])
def test_runs_on_different_data_make_no_curve(curve_rows: Rows, table: Table, column: str) -> None:
    rows = curve_rows() + curve_rows("aim", **{column: "others"})
    with pytest.raises(ValueError, match=f"column {column} mixes others, photos@0123456789ab"):
        curves_over_unique_images(table(rows), 4)


def test_a_reference_on_other_probe_data_is_refused(
    curve_rows: Rows, row: Callable[..., dict[str, Any]], table: Table
) -> None:
    rows = [*curve_rows(), row("untrained", kind="untrained", probe_data="others")]
    with pytest.raises(ValueError, match="column probe_data mixes"):
        curves_over_unique_images(table(rows), 4)
