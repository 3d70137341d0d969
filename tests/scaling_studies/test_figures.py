"""Figures of a study folder: four formats, the same bytes each time, every run and every number in the JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scaling_studies.axes import log_value_axis, ordered_colors, round_ticks
from scaling_studies.figures import FIGURES, NothingToDrawError, draw_study, save_figures
from scaling_studies.figures.drawing import figure_bytes
from scaling_studies.figures.method_styles import KNOWN_STYLES, method_styles
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


def test_the_cover_says_which_methods_its_arrow_is_of(study: Path) -> None:
    points, fits = read_points(study / "points.csv"), json.loads((study / "fits.json").read_text())
    drawing = FIGURES["cover"](points, fits)
    assert drawing.document()["arrow"]["method_2"] == "aim"
    assert "Arrow: unique images of XTRA and AIM." in drawing.figure._supxlabel.get_text()


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
    styles = method_styles(METHOD_NAMES)
    assert styles == KNOWN_STYLES
    assert len({style.color for style in styles.values()}) == len({style.marker for style in styles.values()}) == 5
    rgb = np.array([mpl.colors.to_rgb(shade) for shade in ordered_colors(6)])
    lightness = rgb @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(lightness) > 0.04)


VARIANTS = (
    *("XTRA-k1", "XTRA-k2", "XTRA-k4", "XTRA-k2-longtail", "D-iGPT-CLIP", "D-iGPT-VQ", "D-iGPT-MAE", "D-iGPT-pixels"),
    *("AIM", "AIM-longtail", "iGPT", "MAE", "MAE-longtail", "mine"),
)


@pytest.fixture(scope="module")
def many(curve_rows: Rows, table: Table) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Points of 14 methods, variants of the known ones among them, of two sizes, too few for a law; and their fits.

    The ratios of all pairs and the residuals are made up.
    """
    rows = [
        row | {"value": row["value"] + 0.002 * place, "value_high": 1.0, "train_flops": flops}
        for place, name in enumerate(VARIANTS)
        for preset, flops in (("nano", 1e12), ("micro", 1e13))
        for row in curve_rows(name, preset, images=(100, 1_000))
    ]
    nothing = {"kind": "untrained", "unique_images": 0, "samples_seen": 0, "train_flops": 0.0}
    rows += [
        row | nothing | {"name": f"untrained-{row['name']}"}
        for name in VARIANTS
        for row in curve_rows(name, "micro", images=(1_000,))
    ]
    points = table(rows)
    ends = {"quality": [0.3, 0.2], "ratio": [2.0, 3.0], "low": [1.0, None], "high": [3.0, None]}
    ratios = [
        {"method_1": first, "method_2": second, "x": "unique_images", "preset": "micro"} | ends
        for first, second in combinations(method_styles(VARIANTS), 2)
    ]
    return points, fit_study(points) | {"efficiency_curves": ratios}


def looks(axes: Any) -> list[tuple[str, str]]:
    """Colors and markers of the points in a panel, one per series of filled markers."""
    lines = [line for line in axes.lines if line.get_marker() not in ("None", "", None)]
    return [(line.get_color(), line.get_marker()) for line in lines if line.get_markerfacecolor() != "white"]


@pytest.mark.parametrize("name", ["cover", "error_vs_unique_images", "error_vs_params", "error_vs_compute"])
def test_the_methods_of_a_panel_all_look_different_and_alike_in_all_figures(
    many: tuple[pd.DataFrame, dict[str, Any]], name: str
) -> None:
    styles = {tuple(style) for style in method_styles(VARIANTS).values()}
    assert len(styles) == len(VARIANTS)
    for axes in FIGURES[name](*many).figure.axes:
        seen = [look for look in looks(axes) if look != ("#000000", "x")]
        assert len(seen) == len(VARIANTS)
        assert set(seen) == styles


def test_residuals_and_ratios_look_as_their_methods_do(many: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    points, _ = many
    styles = method_styles(VARIANTS)
    row = {"run": "a", "x": 1e3, "value": 0.2, "fitted": 0.21, "sigma": 0.01}
    curve = {"status": "fitted", "objective": "AIM", "x": "unique_images", "residuals": [row]}
    assert looks(FIGURES["residuals"](points, {"curves": [curve]}).figure.axes[0]) == [styles["AIM"]]
    ratio = {"method_1": "AIM", "x": "unique_images", "preset": None, "quality": [0.3, 0.2], "ratio": [2.0, 3.0]}
    rows = [ratio | {"low": [1.0, 2.0], "high": [3.0, 4.0], "method_2": name} for name in ("iGPT", "MAE")]
    fits = {"efficiency_curves": rows, "curves": [], "metric": "linear_probe_error"}
    assert looks(FIGURES["efficiency_over_unique_images"](points, fits).figure.axes[0]) == [
        styles["iGPT"],
        styles["MAE"],
    ]


def test_up_to_seven_methods_differ_in_color_and_in_marker_and_84_in_both_together() -> None:
    for one in zip(*method_styles(["xtra", "aim", "mae", "digpt", "igpt", "XTRA-k2", "AIM"]).values(), strict=True):
        assert len(set(one)) == 7
    assert len(set(method_styles(map(str, range(84))).values())) == 84
    with pytest.raises(NothingToDrawError, match="there are 85 methods, 84 can be told apart"):
        method_styles(map(str, range(85)))


def test_of_many_pairs_of_methods_those_with_the_first_are_drawn(many: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    drawing = FIGURES["efficiency_over_unique_images"](*many)
    labels = [curve["label"] for curve in drawing.document()["curves"]]
    assert labels == [f"XTRA-k1 over {name}, micro" for name in method_styles(VARIANTS) if name != "XTRA-k1"]
    assert "Of 91 pairs of methods the 13 with XTRA-k1" in drawing.figure._supxlabel.get_text()
    assert drawing.figure.get_figheight() < 10
    assert len(set(looks(drawing.figure.axes[0]))) == 13
