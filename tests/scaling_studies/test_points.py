"""The table of points: what is written is read back, and a wrong cell is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scaling_studies.points import chosen, missing_runs, points_table, read_points, write_points

OTHERS = {
    "name": "XTRA-B",
    "kind": "imported",
    "objective": "xtra",
    "metric": "linear_probe_error",
    "value": 0.232,
    "source": "arXiv 2411.15648",
    "status": "completed",
}


@pytest.fixture
def points(row: Callable[..., dict[str, Any]]) -> pd.DataFrame:
    return points_table(
        [
            row("a, with a comma", 1 / 3, preset="1", train_loss=0.1 + 0.2),
            row("raw", kind="raw_pixels", objective="raw_pixels", pretrain_data=None, strategy=None),
            row("lost", cell="a", chosen=False),
            {**OTHERS, "params_encoder": 85_800_000, "unique_images": 13_100_000},
            {"name": "gone", "status": "failed", "reason": 'said "no"'},
        ]
    )


def test_read_back_is_what_was_written(points: pd.DataFrame, tmp_path: Path) -> None:
    write_points(tmp_path / "points.csv", points)
    again = read_points(tmp_path / "points.csv")
    pd.testing.assert_frame_equal(again, points, check_exact=True)
    write_points(tmp_path / "again.csv", again)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "points.csv").read_bytes()


def test_a_preset_of_digits_stays_text(points: pd.DataFrame, tmp_path: Path) -> None:
    write_points(tmp_path / "points.csv", points)
    assert read_points(tmp_path / "points.csv")["preset"][0] == "1"


def test_a_byte_order_mark_of_a_spreadsheet_is_no_column(points: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    write_points(path, points)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert list(read_points(path)["name"]) == list(points["name"])


@pytest.mark.parametrize(
    ("column", "cell", "says"),
    [
        ("value", "1.2", "is not a fraction from 0 to 1"),
        ("value", "many", "is not a number"),
        ("value_high", "0.1", "is outside"),
        ("unique_images", "12.5", "is not a whole number"),
        ("unique_images", "0", "a trained run has at least 1"),
        ("params_encoder", "", "is blank"),
        ("preset", "", "is blank"),
        ("train_flops", "inf", "is not finite"),
        ("kind", "tuned", "'tuned' is none of trained"),
        ("chosen", "perhaps", "is not true or false"),
        ("metric", "f1", "'f1' is not linear_probe_error"),
        ("num_test", "0", "at least 1 test image"),
        ("status", "done", "'done' is none of pending"),
    ],
)
def test_a_wrong_cell_is_named_by_file_row_and_column(
    points: pd.DataFrame, tmp_path: Path, column: str, cell: str, says: str
) -> None:
    path = tmp_path / "points.csv"
    text = points.astype(object).where(points.notna(), "")
    text.loc[0, column] = cell
    text.to_csv(path, index=False)
    with pytest.raises(ValueError) as error:
        read_points(path)
    message = str(error.value)
    assert message.startswith(f"{path}, row 1 (a, with a comma), column ")
    assert column.removesuffix("_high") in message
    assert says in message
    assert "\n" not in message


def test_a_run_that_is_there_twice_is_named(row: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="row 2, column name: 'a' is there twice"):
        points_table([row("a"), row("a")])


def test_rows_of_others_say_where_they_are_from(row: Callable[..., dict[str, Any]]) -> None:
    others = points_table([OTHERS])
    assert others["source"][0] == "arXiv 2411.15648"
    with pytest.raises(ValueError, match="column source: is blank; an imported row says where it is from"):
        points_table([{**OTHERS, "source": None}])


def test_the_chosen_rows_are_ours_and_not_lost(points: pd.DataFrame) -> None:
    assert list(chosen(points)["name"]) == ["a, with a comma", "raw"]


def test_missing_and_unknown_columns_are_named(points: pd.DataFrame, tmp_path: Path) -> None:
    points.rename(columns={"value": "accuracy"}).to_csv(tmp_path / "points.csv", index=False)
    with pytest.raises(ValueError, match=r"missing columns \['value'\], unknown columns \['accuracy'\]"):
        read_points(tmp_path / "points.csv")


def test_a_file_that_is_no_table_is_refused_in_one_line(tmp_path: Path) -> None:
    for content in (b"", b'"a\n', b"\xff\xfe\x00"):
        (tmp_path / "points.csv").write_bytes(content)
        with pytest.raises(ValueError, match="points.csv") as error:
            read_points(tmp_path / "points.csv")
        assert "\n" not in str(error.value)


def test_runs_without_a_value_are_told_with_their_reason(points: pd.DataFrame) -> None:
    assert missing_runs(points) == ['gone (failed: said "no")']
