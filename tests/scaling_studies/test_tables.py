"""Tables of others and learning curves become points, and a wrong cell is named."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling_studies import fit_law, learning_curve, load_points

TABLE = pd.DataFrame({"Model Size": [1e8, 2e8, 4e8], "images": [1e9, 1e9, 2e9], "val": [2.5, 2.4, 2.2]})
COLUMNS = {"params": "Model Size", "samples_seen": "images", "loss": "val"}


@pytest.mark.parametrize("kind", ["csv", "json", "columns.json", "parquet"])
def test_every_kind_of_table_is_read_alike(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"points.{kind}"
    if kind == "csv":
        TABLE.to_csv(path, index=False)
    elif kind == "parquet":
        if find_spec("pyarrow") is None:
            path.write_bytes(b"PAR1")
            with pytest.raises(ValueError, match="Parquet needs pyarrow"):
                load_points(path)
            return
        TABLE.to_parquet(path)
    else:
        path.write_text(json.dumps(TABLE.to_dict("list" if "columns" in kind else "records")))
    points = load_points(path, COLUMNS)
    assert list(points.columns) == ["params", "samples_seen", "loss"]
    assert list(points.index) == [1, 2, 3]
    np.testing.assert_array_equal(points["loss"], TABLE["val"])


@pytest.mark.parametrize(
    ("column", "cell", "says"),
    [
        ("Model Size", "big", "row 2, column params: 'big' is not a number"),
        ("Model Size", "", "row 2, column params: nan is blank"),
        ("images", "inf", "row 2, column samples_seen: inf is not finite"),
        ("val", "-1", "row 2, column loss: -1.0 is too small"),
    ],
)
def test_a_wrong_cell_is_named_by_file_row_and_column(tmp_path: Path, column: str, cell: str, says: str) -> None:
    path = tmp_path / "points.csv"
    table = TABLE.astype(object)
    table.loc[1, column] = cell
    table.to_csv(path, index=False)
    with pytest.raises(ValueError) as error:
        load_points(path, COLUMNS)
    assert str(error.value).startswith(str(path))
    assert says in str(error.value)


def test_errors_are_made_of_accuracies(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("images,acc1\n1e4,0.25\n1e5,\n1e6,0.75\n")
    points = load_points(path, {"error": "1-acc1"})
    assert list(points.columns) == ["images", "acc1", "error"]
    np.testing.assert_array_equal(points["error"], [0.75, np.nan, 0.25])
    for cell, says in (
        ("57", "column acc1 reaches 57: per cent? Divide it by 100"),
        ("high", "row 2, column acc1: 'high' is not a number"),
    ):
        path.write_text(f"images,acc1\n1e4,0.25\n1e5,{cell}\n")
        with pytest.raises(ValueError, match=re.escape(says)):
            load_points(path, {"error": "1-acc1"})


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("points.csv", "", "is not a readable csv table"),
        ("points.json", "{", "is not a readable json table"),
        ("points.xls", "x", ".xls is no known kind of table"),
        ("points.csv", "a,b\n", "has no column 'Model Size' for params; there are a, b"),
    ],
)
def test_a_file_that_is_no_table_is_named_in_one_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError) as error:
        load_points(tmp_path / name, COLUMNS)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_published_table_is_fitted_by_the_published_recipe(tmp_path: Path) -> None:
    """Nine budgets of 27 sizes as Hoffmann et al. have them, five of the losses spoilt."""
    rng = np.random.default_rng(0)
    flops = np.repeat(np.geomspace(6e18, 3e21, 9), 27)
    size = np.exp(rng.uniform(np.log(4e7), np.log(1.6e10), 243))
    tokens = flops / 6 / size
    loss = (1.69 + 406.4 / size**0.34 + 410.7 / tokens**0.28) * np.exp(5e-4 * rng.standard_normal(243))
    loss[::50] *= 1.2
    table = pd.DataFrame({"Model Size": size, "Training Tokens": tokens, "Training FLOP": flops, "loss": loss})
    table.to_csv(tmp_path / "published.csv", index=False)
    points = load_points(tmp_path / "published.csv", columns={"params": "Model Size", "tokens": "Training Tokens"})
    fit = fit_law(points, law="parametric", x=("params", "tokens"), y="loss")
    assert list(fit.params) == ["E", "A", "B", "alpha", "beta"]
    assert fit.result.num_starts == 4500
    assert fit.params["E"] == pytest.approx(1.69, rel=0.01)
    assert (fit.params["alpha"], fit.params["beta"]) == (pytest.approx(0.34, rel=0.03), pytest.approx(0.28, rel=0.03))
    assert set(fit.outliers) >= {1, 51, 101, 151, 201}


def test_a_learning_curve_is_fitted_like_any_points(tmp_path: Path) -> None:
    run = tmp_path / "xtra-nano"
    run.mkdir()
    steps = np.arange(1, 31)
    lines = [
        {"step": int(step), "samples_seen": int(64 * step), "loss": float(0.5 + 2 * (64 * step) ** -0.5)}
        for step in steps
    ]
    lines[5]["loss"] = None
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 31, "sam'
    (run / "metrics.jsonl").write_text(text)
    (run / "result.json").write_text(json.dumps({"params_encoder": 30_000, "seed": 3}))
    curve = learning_curve(run)
    assert len(curve) == 29
    assert list(curve["params_encoder"].unique()) == [30_000]
    fit = fit_law(curve, "m2", x="samples_seen", y="loss")
    assert fit.params == pytest.approx({"y_inf": 0.5, "b": 2.0, "c": -0.5}, rel=1e-4)


def test_a_broken_line_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metrics.jsonl is missing"):
        learning_curve(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1,\n{"step": 2, "loss": 1.0}\n')
    with pytest.raises(ValueError, match="metrics.jsonl line 1 is not valid JSON"):
        learning_curve(tmp_path)
