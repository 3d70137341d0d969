"""Intervals cover at about their nominal rate; `make coverage` does so for every law over 200 repeats."""

from __future__ import annotations

import pytest

from scaling_studies.coverage import CASES, coverage, curve_coverage

NUM_REPEATS = 40


@pytest.mark.parametrize("law", ["m1", "m2"])
def test_intervals_hold_the_truth_in_about_95_percent_of_repeats(law: str) -> None:
    found = coverage(CASES[law], NUM_REPEATS)
    assert found.pop("fits") == 1.0
    # 95% of 40 with a standard deviation of 1.4: 33 is 3.6 below.
    assert min(found.values()) >= 33 / NUM_REPEATS, found


@pytest.mark.parametrize("num_points", [3, 5])
def test_what_is_read_off_a_curve_of_few_points_covers_too(num_points: int) -> None:
    found = curve_coverage(CASES["m1"], num_points, 30)
    # 95% of 30 with a standard deviation of 1.2: 25 is 3 below.
    assert min(found.values()) >= 25 / 30, found
