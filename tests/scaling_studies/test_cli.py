"""The command line on tables: the answers of the API, bad input in one line, and no training package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scaling_studies import efficiency, fit_law, load_points, needed
from scaling_studies.__main__ import main
from scaling_studies.coverage import CASES
from scaling_studies.points import points_table, write_points

X = np.geomspace(1e4, 1e8, 10)
COLUMNS = ("--column", "samples_seen=seen", "--column", "error=err")
XY = (*COLUMNS, "--x", "samples_seen", "--y", "error")
Run = Callable[..., tuple[int, str, str]]
Rows = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process; its status and what it wrote to both streams."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scaling_studies", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return call


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, of which the second needs three times the samples."""
    noise = np.exp(0.005 * np.random.default_rng(1).standard_normal((2, 10)))
    tables = [
        pd.DataFrame({"objective": name, "seen": X, "err": (0.1 + 3 * (X / needs) ** -0.3) * noise[i]})
        for i, (name, needs) in enumerate((("xtra", 1.0), ("aim", 3.0)))
    ]
    path = tmp_path_factory.mktemp("tables") / "runs.csv"
    pd.concat(tables).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every other size and number of tokens of the coverage case."""
    points = pd.DataFrame(CASES["parametric"].points(np.random.default_rng(0)))
    few = [points[name].unique()[::2] for name in ("x0", "x1")]
    points = points[points["x0"].isin(few[0]) & points["x1"].isin(few[1])]
    path = tmp_path_factory.mktemp("tables") / "sizes.csv"
    points.rename(columns={"x0": "params", "x1": "tokens", "y": "loss"}).to_csv(path, index=False)
    return path


def test_a_fit_is_that_of_the_api(run: Run, runs: Path) -> None:
    status, text, _ = run("fit", runs, *XY, "--where", "objective=xtra", "--law", "m2", "--json")
    assert status == 0
    points = load_points(runs, {"samples_seen": "seen", "error": "err"})
    fit = fit_law(points[points["objective"] == "xtra"], "m2", x="samples_seen", y="error")
    found = json.loads(text)
    assert {name: each["value"] for name, each in found["params"].items()} == fit.params
    assert (found["params"]["c"]["low"], found["params"]["c"]["high"]) == fit.interval("c")
    assert run("fit", runs, *XY, "--where", "objective=xtra")[1].strip() == fit.summary()


@pytest.mark.parametrize("law", ["m1", "m2", "m3", "zhai"])
def test_laws_of_one_variable_are_there_by_name(run: Run, runs: Path, law: str) -> None:
    status, text, _ = run("fit", runs, *XY, "--where", "objective=aim", "--law", law, "--json")
    assert (status, json.loads(text)["law"]) == (0, law)


def test_parameters_are_held_and_intervals_chosen(run: Run, runs: Path) -> None:
    options = ("--where", "objective=aim", "--fixed", "y_inf=0.1", "--intervals", "cases", "--level", "0.5", "--json")
    found = json.loads(run("fit", runs, *XY, *options)[1])["params"]
    assert found["y_inf"] == {"value": pytest.approx(0.1), "low": pytest.approx(0.1), "high": pytest.approx(0.1)}
    assert found["c"]["low"] < found["c"]["value"] < found["c"]["high"]


def test_laws_are_ranked(run: Run, runs: Path) -> None:
    rows = json.loads(run("rank", runs, *XY, "--where", "objective=xtra", "--law", "m1,m2,m4", "--json")[1])
    assert [row["law"] for row in rows][-1] == "m1"
    assert rows[0]["extrapolation_rmse"] < rows[-1]["extrapolation_rmse"]
    status, text, _ = run("rank", runs, *XY, "--where", "objective=xtra")
    assert status == 0
    assert all(law in text for law in ("m1", "m2", "m3", "m4", "zhai", "bnsl"))


def test_an_efficiency_is_that_of_the_api(run: Run, runs: Path) -> None:
    points = load_points(runs, {"samples_seen": "seen", "error": "err"})
    fits = [fit_law(points[points["objective"] == name], "m2", x="samples_seen", y="error") for name in ("xtra", "aim")]
    expected = efficiency(fits[0], fits[1], at=0.2)
    status, text, _ = run("efficiency", runs, "xtra", "aim", *XY, "--at", 0.2, "--json")
    assert status == 0
    assert json.loads(text) == vars(expected) | {"cautions": []}
    assert expected.low < 3.0 < expected.high
    sentence = run("efficiency", runs, "xtra", "aim", *XY, "--at", 0.2)[1]
    assert sentence.startswith("At error 0.2, xtra needs ")
    assert " as efficient (95% interval " in sentence


def test_over_qualities_an_efficiency_is_a_table(run: Run, runs: Path) -> None:
    found = json.loads(run("efficiency", runs, "xtra", "aim", *XY, "--json")[1])
    assert [row["reason"] for row in found["efficiency"]] == [None] * 40
    assert found["crossings"] == []
    assert "do not cross" in run("efficiency", runs, "xtra", "aim", *XY)[1]


def test_a_quality_not_reached_is_an_error_unless_extrapolated(run: Run, runs: Path) -> None:
    status, _, error = run("efficiency", runs, "xtra", "aim", *XY, "--at", 0.11)
    assert (status, error.count("\n")) == (2, 1)
    assert error.startswith("error: not reached within the data: error 0.11, the curve spans")
    status, text, _ = run("efficiency", runs, "xtra", "aim", *XY, "--at", 0.11, "--extrapolate")
    assert status == 0
    assert "Extrapolated: " in text


def test_predictions_of_a_law_in_two_variables(run: Run, sizes: Path) -> None:
    law = ("--law", "parametric", "--x", "params,tokens", "--y", "loss")
    fit = fit_law(load_points(sizes), "parametric", x=("params", "tokens"), y="loss")
    quick = ("--intervals", "residuals")
    place = ("--at", "params=1e9", "--at", "tokens=1e12")
    found = json.loads(run("predict", sizes, *law, *place, *quick, "--json")[1])
    assert found["value"] == pytest.approx(float(fit.predict(1e9, 1e12)))
    assert found["low"] < found["value"] < found["high"]
    # The test goes along the last variable: upward it is validated, the other is not.
    assert found["warning"] is None
    text = run("predict", sizes, *law, "--at", "params=1e11", "--at", "tokens=1e10", *quick)[1]
    assert "warning: params goes " in text
    assert " in tokens was validated (log error " in text
    text = run("predict", sizes, *law, "--compute", "1e20", *quick)[1]
    assert text.startswith("compute 1e+20 FLOPs: params ")
    assert json.loads(run("predict", sizes, *law, "--compute", "1e20", *quick, "--json")[1])["cautions"] == []
    # With one variable held the other is in question.
    status, _, error = run("predict", sizes, *law, "--quality", "1.0", "--hold", "params=1e9")
    assert status == 2
    assert error.startswith("error: not reached within the data: loss 1, the curve spans")
    assert "the best split holds nothing" in run("predict", sizes, *law, "--compute", "1", "--hold", "params=1")[2]


def test_what_a_quality_takes_is_that_of_the_api(run: Run, runs: Path) -> None:
    points = load_points(runs, {"samples_seen": "seen", "error": "err"})
    expected = needed(fit_law(points[points["objective"] == "aim"], "m2", x="samples_seen", y="error"), 0.2)
    options = (*XY, "--where", "objective=aim", "--quality", 0.2)
    assert json.loads(run("predict", runs, *options, "--json")[1]) == vars(expected) | {"cautions": []}
    assert run("predict", runs, *options)[1].startswith("samples_seen 2")


def test_rows_are_kept_or_left_out_by_either_name(run: Run, runs: Path) -> None:
    kept = run("fit", runs, *XY, "--where", "objective=xtra")[1]
    assert run("fit", runs, *XY, "--where", "objective!=aim")[1] == kept
    renamed = ("--column", "method=objective", "--where", "objective=xtra", "--where", "method!=aim")
    assert run("fit", runs, *XY, *renamed)[1] == kept


def test_rows_blank_in_y_are_left_out_and_counted_in_one_line(run: Run, runs: Path, tmp_path: Path) -> None:
    """Of a study that are the runs without that probe."""
    table = pd.read_csv(runs).query("objective == 'xtra'")
    part = table.assign(attentive=table["err"].where(np.arange(10) != 3)).rename(columns={"err": "linear"})
    part.to_csv(tmp_path / "points.csv", index=False)
    table[np.arange(10) != 3].to_csv(tmp_path / "full.csv", index=False)
    options = ("--x", "seen", "--law", "m1", "--json")
    status, out, error = run("fit", tmp_path / "points.csv", *options, "--y", "attentive")
    assert (status, error) == (0, "1 of 10 rows have no attentive and are left out\n")
    full = run("fit", tmp_path / "full.csv", *options, "--y", "err")[1]
    assert json.loads(out)["params"] == json.loads(full)["params"]
    ranked = run("rank", tmp_path / "points.csv", "--x", "seen", "--y", "attentive", "--law", "m1")
    assert (ranked[0], ranked[2]) == (0, error)


def test_values_of_two_types_are_named_where_none_is_the_one_asked_for(run: Run, tmp_path: Path) -> None:
    rows = [{"patch": patch, "seen": 1e4, "err": 0.5} for patch in (16, "half", 8)]
    (tmp_path / "runs.json").write_text(json.dumps(rows))
    status, _, error = run("fit", tmp_path / "runs.json", "--x", "seen", "--y", "err", "--where", "patch=4")
    assert status == 2
    assert "column patch: no row has '4'; there are 16, 8, half" in error


def test_an_accuracy_is_fitted_as_one_minus_it(run: Run, tmp_path: Path) -> None:
    pd.DataFrame({"seen": X, "acc1": 0.9 - 3 * X**-0.3}).to_csv(tmp_path / "accuracies.csv", index=False)
    options = ("--column", "error=1-acc1", "--x", "seen", "--y", "error", "--json")
    found = json.loads(run("fit", tmp_path / "accuracies.csv", *options)[1])["params"]
    assert found["y_inf"]["value"] == pytest.approx(0.1, rel=1e-3)


def test_a_prediction_as_far_as_the_law_was_scored_carries_no_warning(run: Run, runs: Path) -> None:
    aim = (*XY, "--where", "objective=aim")
    # Of ten points over four decades the lower half ends a factor 2.78 below the largest.
    assert "warning" not in run("predict", runs, *aim, "--at", "samples_seen=2.5e8")[1]
    far = run("predict", runs, *aim, "--at", "samples_seen=1e9")[1]
    assert "warning: samples_seen goes 10 times beyond the data: a factor of 2.78 was validated" in far


def test_answers_from_few_points_say_so(run: Run, runs: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.csv"
    points = pd.read_csv(runs)
    points.groupby("objective").head(4).to_csv(few, index=False)
    says = "the noise is judged from 1 degree of freedom"
    aim: tuple[object, ...] = ("predict", few, *XY, "--where", "objective=aim")
    assert f"warning: {says}" in run(*aim, "--at", "samples_seen=5e4")[1]
    for question in (("--at", "samples_seen=5e4"), ("--quality", "0.3")):
        (said,) = json.loads(run(*aim, *question, "--json")[1])["cautions"]
        assert said.startswith(says)
    methods: tuple[object, ...] = ("efficiency", few, "xtra", "aim", *XY)
    text = run(*methods)[1]
    assert f"warning: xtra: {says}" in text
    assert f"warning: aim: {says}" in text
    for question in ((), ("--at", "0.25")):
        first, second = json.loads(run(*methods, *question, "--json")[1])["cautions"]
        assert first.startswith(f"xtra: {says}")
        assert second.startswith(f"aim: {says}")


@pytest.mark.parametrize(
    ("column", "cells", "says"),
    [
        ("err", np.full(10, 0.2), "column error is 0.2 in all 10 rows: a constant column has no curve"),
        ("seen", np.full(10, 1e6), "column samples_seen is 1e+06 in all 10 rows: one size only makes no curve"),
        ("err", np.where(np.arange(10) == 3, -0.1, 0.2), "row 4, column error: -0.1 is too small"),
        ("err", np.where(np.arange(10) == 3, np.inf, 0.2), "row 4, column error: inf is not finite"),
        ("seen", np.where(np.arange(10) == 3, np.nan, X), "row 4, column samples_seen: nan is blank"),
        (
            "err",
            1 - 3 * X**-0.3,
            "column error rises with samples_seen, which no saturating power law does: is it an acc",
        ),
        ("err", 100 * (0.1 + 3 * X**-0.3), "column error reaches 28.9287: per cent? Divide it by 100"),
        ("seen", np.tile([1e4, 1e5], 5), "share their samples_seen but disagree"),
    ],
)
def test_bad_tables_end_in_one_line(run: Run, tmp_path: Path, column: str, cells: Any, says: str) -> None:
    table = pd.DataFrame({"seen": X, "err": 0.1 + 3 * X**-0.3})
    table[column] = cells
    path = tmp_path / "bad.csv"
    table.to_csv(path, index=False)
    status, _, error = run("fit", path, *XY)
    assert (status, error.count("\n")) == (2, 1)
    assert error.startswith("error: ")
    assert says in error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("fit", "none.csv", "--x", "a", "--y", "b"), "none.csv is not a file"),
        (("fit", "RUNS"), "is no study folder; for a table say --x and --y"),
        (("fit", "RUNS", *XY, "--law", "m9"), "law 'm9' is none of m1, m2"),
        (("fit", "RUNS", *XY, "--law", "parametric"), "takes 2 columns as x (N, D), got ['samples_seen']"),
        (("fit", "RUNS", *XY, "--where", "objective=mae"), "no row has 'mae'; there are aim, xtra"),
        (("fit", "RUNS", *XY, "--where", "objective!=mae"), "no row has 'mae'; there are aim, xtra"),
        (("efficiency", "RUNS", "a", "b", *XY, "--by", "data"), "no column 'data': say --by COLUMN that tells the two"),
        (("fit", "RUNS", *XY, "--column", "accuracy=err", "--y", "accuracy"), "fit 1 - accuracy as error"),
        (("fit", "RUNS", *XY, "--fixed", "y_inf"), "--fixed 'y_inf': expected NAME=VALUE"),
        (("fit", "RUNS", *XY, "--fixed", "y_inf=low"), "--fixed y_inf: 'low' is not a number"),
        (("fit", "RUNS", "--x", "seen", "--y", "loss"), "no column 'loss'; there are objective, seen, err"),
        (("fit", "RUNS", *XY), "share their samples_seen but disagree"),
        (("predict", "RUNS", *XY, "--where", "objective=aim"), "say one of --at COLUMN=VALUE, --quality and --compute"),
        (("fit", "FOLDER", *XY), "is a study folder: --law and --y are the only options that it takes"),
        (("plot", "RUNS"), "runs.csv is no study folder; of a table: python -m scaling_studies.scripts.plot_..."),
        (("rank", "RUNS", "--x", "seen", "--column", "acc=err", "--y", "acc"), "no law can be fitted: column acc is"),
        (("collect", "none"), "none is not a study folder"),
        (("rank", "RUNS", *XY, "--law", "m2,accuracy"), "are not on one scale"),
    ],
)
def test_bad_arguments_end_in_one_line(run: Run, runs: Path, arguments: tuple[str, ...], says: str) -> None:
    places = {"RUNS": runs, "FOLDER": runs.parent}
    status, _, error = run(*(places.get(word, word) for word in arguments))
    assert (status, error.count("\n")) == (2, 1)
    assert says in error


_TRAINING = "torch torchvision deepspeed webdataset open_clip timm tensorboard submitit safetensors huggingface_hub"
_WITHOUT = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {(_TRAINING + " fsspec pyarrow simplejpeg").split()!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Absent())
"""


def test_the_base_install_is_enough_for_a_study_and_for_a_table(curve_rows: Rows, runs: Path, tmp_path: Path) -> None:
    write_points(tmp_path / "points.csv", points_table(curve_rows()))
    steps = "from scaling_studies.cli import app; [app([step, sys.argv[1]], standalone_mode=False) for step in steps]; "
    table = "from arvis_scale.cli import main; sys.argv = ['x', 'study', *sys.argv[2:]]; main()"
    code = f"{_WITHOUT}steps = ('fit', 'plot', 'report'); {steps}{table}"
    words = [str(tmp_path), "efficiency", str(runs), "xtra", "aim", "--at", "0.2", *XY]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").is_file()
    assert "samples_seen" in done.stdout
