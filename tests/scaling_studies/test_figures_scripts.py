"""Every plotting script runs as its page says, prints what it says and draws a table of the user's."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

import scaling_studies.scripts
from scaling_studies.example import example_isoflop_points, example_points

SCRIPTS = sorted(Path(scaling_studies.scripts.__path__[0]).glob("plot_*.py"))


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


def test_a_script_draws_a_table_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, table in (("error_vs_compute", example_points()), ("isoflop", example_isoflop_points())):
        table.iloc[:-1].to_csv("mine.csv", index=False)
        monkeypatch.setattr(sys, "argv", [name, "mine.csv"])
        (script,) = (path for path in SCRIPTS if path.stem == f"plot_{name}")
        runpy.run_path(str(script), run_name="__main__")
        assert f"figures/{name}.png" in capsys.readouterr().out
