"""Bad input: whatever no fit can use is named in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from scaling_studies import fit_law
from scaling_studies.coverage import CASES

X = np.geomspace(1e3, 1e7, 12)


def curve(**columns: Any) -> pd.DataFrame:
    """Twelve good points of a falling error, rows labelled from 1, with columns replaced."""
    table = pd.DataFrame({"samples_seen": X, "error": 0.1 + 3 * X**-0.4} | columns)
    return table.set_axis(range(1, len(table) + 1))


def changed(row: int, column: str, value: float) -> pd.DataFrame:
    table = curve()
    table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (changed(3, "error", np.nan), "row 3, column error: nan is not a number"),
        (changed(4, "samples_seen", np.inf), "row 4, column samples_seen: inf is not finite"),
        (changed(5, "error", -0.1), "row 5, column error: -0.1 is negative"),
        (changed(5, "error", 0.0), "row 5, column error: 0.0 is 0, which has no logarithm"),
        (changed(2, "samples_seen", 0.0), "row 2, column samples_seen: 0.0 is not above 0"),
        (curve(error=["a"] * 12), "row 1, column error: 'a' is not a number (and 11 more rows)"),
        (curve(error=100 * curve()["error"].to_numpy()), "per cent? Divide it by 100"),
        (curve(samples_seen=1e6), "column samples_seen is 1e+06 in all 12 rows: one size only"),
        (curve()[:1], "in the only row: one size only makes no curve"),
        (curve(error=0.2), "column error is 0.2 in all 12 rows: a constant column"),
        (curve(error=0.9 - 3 * X**-0.4), "which no saturating power law does: is it an accuracy? Then fit 1 - error"),
        (curve()[:3], "not enough points: 3 distinct samples_seen, a saturating power law needs 4, law m1 needs 3"),
        (pd.concat([curve()[:3]] * 4, ignore_index=True), "not enough points: 3 distinct samples_seen"),
        (curve().rename(columns={"error": "err"}), "no column 'error'; there are samples_seen, err"),
        (curve()[:0], "points have no rows"),
    ],
)
def test_points_that_no_fit_can_use_are_named_in_one_line(points: pd.DataFrame, says: str) -> None:
    with pytest.raises(ValueError) as error:
        fit_law(points, law="m2", x="samples_seen", y="error")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["acc1", "top5", "Accuracy", "mean_per_class_recall"])
def test_an_accuracy_is_named_by_its_column_whichever_way_it_goes(name: str) -> None:
    falling = curve().rename(columns={"error": name})
    with pytest.raises(ValueError) as error:
        fit_law(falling, law="m2", x="samples_seen", y=name)
    assert f"column {name} is named as an accuracy, and law 'm2' is one of errors: fit 1 - {name}" in str(error.value)
    assert f"--column 'error=1-{name}' --y error" in str(error.value)
    for other in ("top1_error", "accumulated_loss"):
        fit_law(falling.rename(columns={name: other}), law="m2", x="samples_seen", y=other)


def test_an_error_given_as_accuracy_is_named() -> None:
    with pytest.raises(ValueError, match="column error falls with samples_seen: is it an error\\? Then fit 1 - error"):
        fit_law(curve(), law="accuracy", x="samples_seen", y="error")


def test_one_model_size_makes_no_law_in_n_and_d() -> None:
    points = CASES["parametric"].points() | {"x0": np.full(64, 1e8)}
    with pytest.raises(ValueError, match="column x0 is 1e\\+08 in all 64 rows: one size only"):
        fit_law(points, law="parametric", x=("x0", "x1"), y="y")


def test_an_accuracy_over_sizes_and_data_is_named_and_a_loss_along_a_budget_is_not() -> None:
    points = pd.DataFrame(CASES["parametric"].points())
    accuracies = points.assign(error=1 - points["y"] / 12)
    with pytest.raises(ValueError, match="column error rises with x0 and x1, .* is it an accuracy"):
        fit_law(accuracies, law="parametric", x=("x0", "x1"), y="error")
    flops = np.repeat([1e19, 1e20], 9)
    params = np.tile(np.geomspace(3e8, 3e10, 9), 2)
    samples = flops / 6 / params
    loss = 1.69 + 406.4 / params**0.34 + 410.7 / samples**0.28
    assert loss[8] > loss[0]
    fit_law({"n": params, "d": samples, "loss": loss}, law="parametric", x=("n", "d"), y="loss")


def test_rows_that_disagree_are_named_and_repeats_are_not() -> None:
    twice = pd.concat([curve(), curve()[4:5].assign(error=0.9)], ignore_index=True)
    with pytest.raises(ValueError, match="rows 4 and 12 share their samples_seen but disagree"):
        fit_law(twice, law="m2", x="samples_seen", y="error")
    near = pd.concat([curve(), curve()[4:5] * [1, 1.02]], ignore_index=True)
    fit = fit_law(near, law="m2", x="samples_seen", y="error")
    assert fit.warnings[0] == "2 rows share their samples_seen with others: taken as repeats of one point"
    seeds = near.assign(seed=[0] * 12 + [1])
    assert not any("repeats" in text for text in fit_law(seeds, law="m2", x="samples_seen", y="error").warnings)


def two_data_sets(times: float) -> pd.DataFrame:
    """The curve twice at the same compute, the second data set with `times` the errors; every row has its name."""
    both = [curve(data="large"), curve(data="small", error=times * curve()["error"].to_numpy())]
    table = pd.concat(both, ignore_index=True).rename(columns={"samples_seen": "flops"})
    return table.assign(name=[f"run-{row}" for row in table.index], acc5=1 - 0.4 * table["error"])


def test_rows_of_two_data_sets_at_one_compute_are_told_apart_with_a_way_on() -> None:
    with pytest.raises(ValueError) as error:
        fit_law(two_data_sets(1.5), law="m2", x="flops", y="error")
    assert "rows 0 and 12 share their flops but disagree" in str(error.value)
    assert "they differ in data: fit one value of it alone (--where 'data=large')" in str(error.value)
    assert "or the lower envelope of all (envelope()," in str(error.value)
    near = fit_law(two_data_sets(1.1), law="m2", x="flops", y="error")
    assert near.warnings[0] == (
        "24 rows share their flops with others and differ in data: one law goes through all of them"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"law": "m5"}, "law 'm5' is none of m1, m2"),
        ({"law": "parametric"}, "takes 2 columns as x (N, D), got ['samples_seen']"),
        ({"law": "m2", "num_breaks": 2}, "num_breaks is for law 'bnsl'"),
        ({"law": "m2", "huber_delta": 0.0}, "huber_delta is 0.0"),
        ({"law": "m2", "fixed": {"z": 1.0}}, "fixed: 'z' cannot be held"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as error:
        fit_law(curve(), x="samples_seen", y="error", **arguments)
    assert says in str(error.value)
