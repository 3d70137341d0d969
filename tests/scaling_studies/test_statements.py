"""Numbers and sentences as a reader sees them."""

from __future__ import annotations

import pytest

from scaling_studies.statements import count, efficiency_statement, ratio_interval, times


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (16, "16"),
        (999.4, "999"),
        (999.7, "1k"),
        (1_437, "1.44k"),
        (999_600, "1M"),
        (85_843_200, "85.8M"),
        (3e18, "3e+18"),
    ],
)
def test_counts_have_three_digits_and_a_unit(number: float, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(("ratio", "text"), [(2.14, "2.1x"), (0.478, "0.48x"), (9.96, "10x"), (151.6, "152x")])
def test_ratios(ratio: float, text: str) -> None:
    assert times(ratio) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (2.0, 4.0, "95% interval 2.0x to 4.0x"),
        (2.0, None, "95% interval: at least 2.0x"),
        (None, 4.0, "95% interval: at most 4.0x"),
        (None, None, "95% interval open at both ends: not determined by these points"),
    ],
)
def test_intervals_say_which_end_is_open(low: float | None, high: float | None, text: str) -> None:
    assert ratio_interval(low, high) == text


def test_an_efficiency_is_a_sentence() -> None:
    row = {
        "method_1": "xtra",
        "method_2": "aim",
        "x": "unique_images",
        "preset": "nano",
        "status": "measured",
        "at": "middle",
        "quality": 0.2,
        "x_1": 1_000.0,
        "x_2": 3_000.0,
        "ratio": 3.0,
        "low": 2.5,
        "high": None,
        "outside_1": 0.0,
        "outside_2": 0.1,
        "notes": [],
    }
    assert efficiency_statement(row) == (
        "At a linear-probe error of 20.0% (midway in what both measured) with the nano encoder, XTRA needs 1k unique "
        "images where AIM needs 3k: 3.0x as efficient (95% interval: at least 2.5x). 10.0% of AIM's bootstrap curves "
        "do not pass this quality within the data."
    )
