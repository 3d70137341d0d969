"""Figures of a study folder: four formats, the same bytes each time, every run and every number in the JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scaling_studies.axes import color, log_value_axis, marker, ordered_colors, round_ticks
from scaling_studies.figures import FIGURES, draw_study, save_figures
from scaling_studies.figures.drawing import figure_bytes
from scaling_studies.points import read_points
from scaling_studies.statements import METHOD_NAMES
from scaling_studies.study import fit_study

Rows = Callable[..., list[dict[str, Any]]]
Table = Callable[[list[dict[str, Any]]], pd.DataFrame]


def numbers(value: Any) -> list[Any]:
    """All leaves of a JSON document."""
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in numbers(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in numbers(item)]
    return [value]


def test_every_figure_is_written_in_all_formats(study: Path) -> None:
    index = json.loads((study / "figures" / "index.json").read_text())
    drawn = set(index["drawn"])
    assert {path.stem for path in (study / "figures").iterdir()} == drawn | {"index"}
    assert index["schema_version"] == 1
    assert {"cover", "error_vs_unique_images", "error_vs_params", "iso_loss", "residuals"} <= drawn
    assert "efficiency_over_unique_images" in drawn
    assert drawn | set(index["left_out"]) == set(FIGURES)
    for name in drawn:
        with Image.open(study / "figures" / f"{name}.png") as image:
            assert image.format == "PNG"
            assert np.asarray(image.convert("L")).std() > 5
        svg = (study / "figures" / f"{name}.svg").read_text()
        assert svg.startswith("<?xml")
        assert svg.rstrip().endswith("</svg>")
        assert (study / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_numbers_of_a_figure_are_in_its_json(study: Path) -> None:
    points = read_points(study / "points.csv")
    document = json.loads((study / "figures" / "error_vs_unique_images.json").read_text())
    assert document["schema_version"] == 1
    series = [one for panel in document["panels"] for one in panel["series"]]
    named = {name: y for one in series for name, y in zip(one["names"], one["y"], strict=True)}
    trained = points[(points["kind"] == "trained") & points["value"].notna()]
    assert named == dict(zip(trained["name"], trained["value"], strict=True))
    fits = json.loads((study / "fits.json").read_text())
    (curve,) = (c for c in fits["curves"] if (c["objective"], c["preset"], c["x"]) == ("aim", "mini", "unique_images"))
    assert set(curve["line"]["y"]) <= set(numbers(document))


def test_the_same_study_gives_the_same_bytes(curve_rows: Rows, table: Table, tmp_path: Path) -> None:
    points = table(curve_rows(images=(100, 1_000, 10_000, 100_000)))
    fits = fit_study(points)
    first, second = (save_figures(points, fits, tmp_path / name) for name in ("first", "second"))
    assert {path.suffix for path in first} == {".png", ".svg", ".pdf", ".json"}
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_one_run_alone_is_drawn_and_the_other_figures_say_why_not(curve_rows: Rows, table: Table) -> None:
    points = table(curve_rows(images=(1_000,)))
    drawn = draw_study(points, fit_study(points))
    assert {"cover", "error_vs_unique_images", "error_vs_params"} <= set(drawn.drawings)
    assert drawn.left_out["residuals"] == "there is no fitted curve to take residuals of"
    assert drawn.left_out["error_vs_compute"] == "fewer than 2 different training budgets were measured"
    assert set(drawn.drawings) | set(drawn.left_out) == set(FIGURES)


def test_training_budgets_of_one_bin_give_no_envelope(curve_rows: Rows, table: Table) -> None:
    points = table([*curve_rows("xtra", train_flops=1.00e12), *curve_rows("aim", train_flops=1.01e12)])
    drawn = draw_study(points, fit_study(points))
    assert drawn.left_out["error_vs_compute"].startswith("training budgets are too near each other")


def test_a_curve_that_was_refused_has_no_line(study: Path) -> None:
    points, fits = read_points(study / "points.csv"), json.loads((study / "fits.json").read_text())
    refused = [curve["objective"] for curve in fits["curves"] if curve["x"] == "params_encoder"]
    document = FIGURES["error_vs_params"](points, fits).document()
    assert len(refused) == 2
    lines = [one["line"] for one in document["panels"][0]["series"]]
    assert lines and all(line is None for line in lines)


def test_a_run_without_an_error_is_drawn_inside_the_axes(curve_rows: Rows, table: Table) -> None:
    rows = curve_rows(images=(100, 1_000))
    rows[1] |= {"value": 0.0, "value_low": 0.0, "value_high": 0.0004}
    points = table(rows)
    figure = FIGURES["error_vs_unique_images"](points, fit_study(points)).figure
    figure_bytes(figure, "svg")
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines if len(line.get_ydata())])
    assert np.all((drawn >= low) & (drawn <= high))


@pytest.mark.parametrize(("low", "high"), [(1.0, 100.0), (3.0, 40.0), (10.0, 30.0), (11.0, 14.0), (18.2, 18.9)])
def test_a_logarithmic_axis_has_at_least_three_round_ticks_in_it(low: float, high: float) -> None:
    ticks = round_ticks(low, high)
    assert len(ticks) >= 3
    assert all(low <= tick <= high for tick in ticks)
    assert ticks == sorted(ticks)


def test_errors_are_labelled_in_per_cent() -> None:
    axes = mpl.figure.Figure().subplots()
    log_value_axis(axes, 0.1, 0.4, percent=True)
    labels = [axes.yaxis.get_major_formatter()(tick, 0) for tick in axes.yaxis.get_ticklocs()]
    assert labels == ["10", "15", "20", "30", "40"]


def test_methods_differ_in_color_and_in_marker_and_sizes_in_lightness() -> None:
    assert len({color(name) for name in METHOD_NAMES}) == len({marker(name) for name in METHOD_NAMES}) == 5
    rgb = np.array([mpl.colors.to_rgb(shade) for shade in ordered_colors(6)])
    lightness = rgb @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(lightness) > 0.04)
