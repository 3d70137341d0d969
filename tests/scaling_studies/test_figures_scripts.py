"""Every plotting script runs as its page says, prints what it says and draws a table of the user's."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import scaling_studies.scripts
from scaling_studies.example import example_isoflop_points, example_points

SCRIPTS = sorted(Path(scaling_studies.scripts.__path__[0]).glob("plot_*.py"))
DATA_SCRIPTS = [path.stem.removeprefix("plot_") for path in SCRIPTS if path.stem != "plot_published"]


def test_there_is_a_script_for_every_kind_of_figure() -> None:
    assert len(SCRIPTS) == 9


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_it_prints_what_its_head_says(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = script.read_text()
    assert f"python -m scaling_studies.scripts.{script.stem}" in text
    assert len(text.splitlines()) <= 60
    expected = re.search(r"It prints.*?:\n\n((?:    .+\n)+)", text)
    assert expected is not None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script.name])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.split() == expected[1].split()
    for name in re.findall(r"figures/\S+", expected[1]):
        assert (tmp_path / name).stat().st_size > 1000


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the script of a figure in a folder of its own; its status and what it wrote to both streams."""
    monkeypatch.chdir(tmp_path)

    def call(name: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        (script,) = (path for path in SCRIPTS if path.stem == f"plot_{name}")
        status = 0
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as ended:
            status = int(ended.code or 0)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


@pytest.mark.parametrize("name", DATA_SCRIPTS)
def test_a_table_without_the_columns_is_answered_in_one_line(run: Run, name: str) -> None:
    Path("mine.csv").write_text("model,acc1\nsmall,0.5\nlarge,0.6\n")
    status, _, error = run(name, "mine.csv")
    assert (status, error.count("\n")) == (2, 1)
    assert "mine.csv has no column " in error
    assert "error, which this figure draws: name it by --column" in error
    assert error.endswith("(error=1-THEIRS of accuracies); there are model, acc1\n")


@pytest.mark.parametrize(
    "name", ["efficiency", "error_vs_compute", "error_vs_params", "extrapolation", "isoflop", "residuals"]
)
def test_a_script_draws_a_table_of_the_users(run: Run, name: str) -> None:
    """Other methods, sizes and names than those of the simulated points, accuracies, and a row without one."""
    points = example_isoflop_points() if name == "isoflop" else example_points()
    theirs = points.assign(
        params=2 * points["params"],
        objective=points["objective"].map({"xtra": "LAION-2B", "aim": "LAION-80M"}),
        error=1 - points["error"],
    )
    theirs.loc[3, "error"] = np.nan
    names = {"objective": "data set", "params": "size", "samples_seen": "images", "flops": "gmacs", "error": "acc1"}
    theirs.rename(columns=names).to_csv("mine.csv", index=False)
    ours = [f"--column={our}={'1-' if our == 'error' else ''}{their}" for our, their in names.items()]
    status, shown, error = run(name, "mine.csv", *ours)
    assert (status, error) == (0, "")
    assert f"1 of {len(theirs)} rows lack one of " in shown
    assert f"figures/{name}.png" in shown


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("efficiency", ("--where", "objective=aim"), "two methods are compared, column objective has 1 (aim)"),
        ("error_vs_data", ("--where", "params=7"), "column params: no row has '7'; there are 5000000.0"),
        ("error_vs_compute", ("--column", "flops"), "--column 'flops': expected NAME=VALUE"),
        ("extrapolation", ("--where", "samples_seen=3e7"), "points have no rows: nothing to fit"),
    ],
)
def test_rows_that_make_no_figure_are_answered_in_one_line(
    run: Run, name: str, arguments: tuple[str, ...], says: str
) -> None:
    example_points().to_csv("mine.csv", index=False)
    status, _, error = run(name, "mine.csv", *arguments)
    assert (status, error.count("\n")) == (2, 1)
    assert says in error
