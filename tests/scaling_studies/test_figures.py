"""Figures: every one is written as PNG and SVG, the same bytes each time, with every run on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scaling_studies.axes import STYLE, log_error_axis, round_ticks
from scaling_studies.figures import FIGURES, figure_bytes, save_figures
from scaling_studies.study import fit_study

Rows = Callable[..., list[dict[str, Any]]]
Table = Callable[[list[dict[str, Any]]], pd.DataFrame]


def test_every_figure_is_written_as_png_and_svg(study: Path) -> None:
    names = {path.name for path in (study / "figures").iterdir()}
    assert names == {f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg")}
    for name in FIGURES:
        with Image.open(study / "figures" / f"{name}.png") as image:
            assert image.format == "PNG"
            assert np.asarray(image.convert("L")).std() > 5
        svg = (study / "figures" / f"{name}.svg").read_text()
        assert svg.startswith("<?xml")
        assert svg.rstrip().endswith("</svg>")


def test_the_same_study_gives_the_same_bytes(curve_rows: Rows, table: Table, tmp_path: Path) -> None:
    points = table(curve_rows(images=(100, 1_000)))
    fits = fit_study(points)
    first, second = (save_figures(points, fits, tmp_path / name) for name in ("first", "second"))
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_one_run_alone_can_be_drawn(curve_rows: Rows, table: Table, tmp_path: Path) -> None:
    points = table(curve_rows(images=(1_000,)))
    assert len(save_figures(points, fit_study(points), tmp_path)) == 2 * len(FIGURES)


def test_a_run_without_an_error_is_drawn_inside_the_axes(curve_rows: Rows, table: Table) -> None:
    rows = curve_rows(images=(100, 1_000))
    rows[1] |= {"value": 0.0, "value_low": 0.0, "value_high": 0.0004}
    points = table(rows)
    with mpl.rc_context(STYLE):
        figure = FIGURES["error_vs_unique_images"](points, fit_study(points))
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
    log_error_axis(axes, 0.1, 0.4)
    labels = [axes.yaxis.get_major_formatter()(tick, 0) for tick in axes.yaxis.get_ticklocs()]
    assert labels == ["10", "15", "20", "30", "40"]
