"""A whole study fitted: every curve is there, fitted or refused, and equal points give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
        reason = "not enough points: 3 distinct params_encoder, a saturating power law needs 4, law m1 needs 3"
        assert curve["reason"] == reason
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


@pytest.fixture(scope="module")
def fits(study: Path) -> dict[str, Any]:
    return json.loads((study / "fits.json").read_text())


def test_every_fitted_curve_says_how_it_goes_on_and_what_is_left(fits: dict[str, Any]) -> None:
    fitted = [curve for curve in fits["curves"] if curve["status"] == "fitted"]
    assert len(fitted) == 6
    for curve in fitted:
        assert [row["run"] for row in curve["residuals"]] == curve["runs"]
        for row in curve["residuals"]:
            assert abs(row["value"] - row["fitted"]) < 5 * row["sigma"] * curve["birge_ratio"]
        ahead = curve["ahead"]
        assert (ahead["x"][0], ahead["x"][-1]) == pytest.approx((100_000, 200_000))
        # Four points leave three below half of the largest, too few for the law: nothing is validated.
        assert curve["extrapolation"] is None
        assert ahead["warning"] == "unique_images goes 2 times beyond the data: no extrapolation was validated"


def test_laws_are_ranked_on_every_fitted_curve(fits: dict[str, Any]) -> None:
    assert len(fits["law_ranking"]) == 6
    for ranking in fits["law_ranking"]:
        rows = {row["law"]: row for row in ranking["rows"]}
        assert set(rows) == {"m1", "m2", "m3", "m4", "zhai", "bnsl"}
        assert rows["m1"]["extrapolation_rmse"] > 0
        assert rows["m1"]["reason"] is None
        assert rows["bnsl"]["reason"].startswith("not enough points: 4 distinct unique_images")


def test_a_surface_goes_through_all_sizes_of_a_method(fits: dict[str, Any]) -> None:
    surfaces = {surface["objective"]: surface for surface in fits["surface"]}
    for objective in ("xtra", "aim"):
        surface = surfaces[objective]
        assert (surface["status"], surface["x"]) == ("fitted", ["params_encoder", "unique_images"])
        assert len(surface["runs"]) == 12
        assert np.shape(surface["grid"]["value"]) == (25, 25)
        # Cost does not hang on the number of unique images: there is no cheapest point.
        assert (surface["flops_per_param_sample"], surface["optimum"]) == (None, None)
        # The truth is 0.05 + 0.12 (U / 1e3)^-0.3 + 0.1 (N / 3e4)^-0.25.
        assert surface["params"]["beta"]["low"] < 0.3 < surface["params"]["beta"]["high"]


def test_over_all_common_errors_the_ratio_holds_the_truth(fits: dict[str, Any]) -> None:
    assert [curve["preset"] for curve in fits["efficiency_curves"]] == ["nano", "micro", "mini"]
    for curve in fits["efficiency_curves"]:
        inside = [
            (low is None or low < 3.0) and (high is None or high > 3.0)
            for low, high in zip(curve["low"], curve["high"], strict=True)
        ]
        assert np.mean(inside) > 0.6
        assert np.array(curve["x_2"]) / np.array(curve["x_1"]) == pytest.approx(curve["ratio"])


def test_predictions_are_sentences_with_their_warnings(fits: dict[str, Any]) -> None:
    kinds = {row["kind"] for row in fits["predictions"]}
    assert kinds == {"quality", "needed"}
    for row in fits["predictions"]:
        assert ("beyond the data" in row["text"]) == (row["warning"] is not None) == (row["kind"] == "quality")


def test_a_surface_says_what_its_curves_say(curve_rows: Rows, table: Table) -> None:
    # Epochs held instead of samples seen: those change with the images.
    images = (100, 1_000, 10_000, 100_000)
    rows = [
        row
        for preset in ("nano", "micro", "mini")
        for count in images
        for row in curve_rows(preset=preset, images=(count,), samples_seen=100 * count)
    ]
    (surface,) = fit_study(table(rows))["surface"]
    changes = "from 10,000 to 10,000,000: its fall is not due to"
    (said,) = (text for text in surface["warnings"] if "along this curve" in text)
    assert said == f"nano, micro, mini: samples_seen changes along this curve, {changes} unique images alone"
    assert surface["warnings"][-1] == (
        f"samples_seen changes over this surface, {changes} encoder size and unique images alone"
    )


def test_over_samples_seen_there_are_curves_a_surface_and_its_cheapest_points(
    curve_rows: Rows, table: Table, row: Callable[..., dict[str, Any]]
) -> None:
    rows = []
    for objective, needs in (("xtra", 1.0), ("aim", 2.0)):
        for preset, params in (("nano", 30_000), ("micro", 210_000), ("mini", 1_200_000)):
            for seen in (1e4, 1e5, 1e6, 1e7, 1e8, 1e9):
                error = 0.05 + 0.1 * (params / 3e4) ** -0.5 + 0.3 * (seen / needs / 1e4) ** -0.3
                cells = {"objective": objective, "preset": preset, "params_encoder": params, "samples_seen": int(seen)}
                cells |= {"value_low": error - 0.01, "value_high": error + 0.01, "num_test": 50_000}
                rows.append(row(f"{objective}-{preset}-n{seen:.0f}", error, **cells, train_flops=7 * params * seen))
    fits = fit_study(table(rows))
    assert [curve["x"] for curve in fits["curves"]].count("samples_seen") == 6
    surface = fits["surface"][0]
    assert (surface["status"], surface["x"]) == ("fitted", ["params_encoder", "samples_seen"])
    assert surface["flops_per_param_sample"] == pytest.approx(7.0)
    optimum = {name: np.array(values) for name, values in surface["optimum"].items()}
    assert 7 * optimum["params"] * optimum["samples"] == pytest.approx(optimum["compute"])
    assert np.all(np.diff(optimum["value"]) < 0)
    assert surface["params"]["alpha"]["value"] == pytest.approx(0.5, rel=1e-3)
    assert [row["kind"] for row in fits["predictions"]][-2:] == ["cheapest", "cheapest"]
    # Twice the samples are twice the compute, wherever a budget is split best.
    measured = [row for row in fits["efficiency"] if row["x"] == "compute"]
    assert [row["ratio"] for row in measured] == pytest.approx([2.0, 2.0], rel=1e-3)
    assert measured[1]["low"] < 2.0 < measured[1]["high"]
    (curve,) = (curve for curve in fits["efficiency_curves"] if curve["x"] == "compute")
    assert curve["ratio"] == pytest.approx([2.0] * 40, rel=1e-3)
    curve = next(curve for curve in fits["curves"] if curve["x"] == "samples_seen")
    # Five of six decades are fitted: the last, a factor of 10, is validated, and 2 is less.
    assert curve["extrapolation"]["validated"] == pytest.approx(10.0)
    assert curve["ahead"]["warning"] is None


def test_another_law_fits_all_curves(curve_rows: Rows, table: Table) -> None:
    fits = fit_study(table(curve_rows()), law="m1")
    (curve,) = [curve for curve in fits["curves"] if curve["preset"]]
    assert (curve["law"]["name"], list(curve["params"])) == ("m1", ["b", "c"])
    with pytest.raises(ValueError, match="law 'parametric' is none of m1, m2"):
        fit_study(table(curve_rows()), law="parametric")


def test_a_cell_whose_runs_are_not_all_there_is_said(
    curve_rows: Rows, row: Callable[..., dict[str, Any]], table: Table
) -> None:
    tuned = row("tuned", cell="c", chosen=True, val_loss=0.4)
    rows = [*curve_rows(), tuned, {"name": "gone", "status": "running", "cell": "c"}]
    rows.append(row("lost", cell="d", chosen=False))
    assert fit_study(table(rows))["warnings"] == [
        "tune cell c: 1 of 2 runs have no val_loss, its choice is not final",
        "tune cell d: no run has a val_loss, so that none is chosen and none is on a curve",
    ]


def test_a_cell_chooses_by_val_loss_whatever_probes_its_runs_have(
    curve_rows: Rows, row: Callable[..., dict[str, Any]], table: Table
) -> None:
    curve = [row | {"error_attentive": row["value"] / 2} for row in curve_rows()]
    cell = [row("a", cell="c", chosen=True, val_loss=0.4), row("b", cell="c", chosen=False, val_loss=0.5)]
    cell.append({"name": "not-probed", "status": "completed", "cell": "c", "chosen": False, "val_loss": 0.6})
    for y in ("error", "error_attentive"):
        assert fit_study(table([*curve, *cell]), y=y)["warnings"] == []


@pytest.mark.parametrize(
    ("losses", "edges"),
    [
        ({"0.001": 0.5, "0.003": 0.4, "0.01": 0.6}, []),
        ({"1e-05": 0.4, "0.003": 0.5, "0.01": 0.6}, ["least lr, 1e-05,"]),
        ({"0.001": 0.5, "0.003": 0.4}, ["greatest lr, 0.003,"]),
    ],
)
def test_a_choice_at_the_edge_of_what_was_tried_is_said(
    curve_rows: Rows, table: Table, losses: dict[str, float], edges: list[str]
) -> None:
    """Of keys in the runs' names that do not change within the cell nothing is said."""
    best = min(losses, key=lambda value: losses[value])
    tuned = [
        {"name": f"xtra-u9-lr_{value}-block_2", "status": "completed", "cell": "c", "val_loss": loss}
        | {"chosen": value == best}
        for value, loss in losses.items()
    ]
    assert fit_study(table([*curve_rows(), *tuned]))["warnings"] == [
        f"the chosen run has the {edge} that was tried, a better one may lie beyond: tune cell c" for edge in edges
    ]


def test_a_study_of_references_alone_is_refused(row: Callable[..., dict[str, Any]], table: Table) -> None:
    with pytest.raises(ValueError, match="no trained run has a result yet"):
        fit_study(table([row("u", kind="untrained"), row("r", kind="raw_pixels", objective="raw_pixels")]))
