"""Differences of methods at equal settings, against the paired t-test of scipy and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scaling_studies.differences import compute_difference_rows, difference_rows
from scaling_studies.statements import difference_statement

# Of the sizes below.
PARAMS = {"a": 1, "b": 2, "c": 3, "nano": 27_000, "micro": 200_000}


def points_of(errors: dict[str, Any], settings: list[tuple[str, int, int, int]]) -> pd.DataFrame:
    """Rows of trained runs, as far as differences read them."""
    rows = [
        {"objective": method, "kind": "trained", "chosen": True, "value": value}
        | {"params_encoder": PARAMS[setting[0]]}
        | dict(zip(("preset", "unique_images", "samples_seen", "seed"), setting, strict=True))
        for method, values in errors.items()
        for setting, value in zip(settings, values, strict=True)
        if value is not None
    ]
    return pd.DataFrame(rows)


def test_over_seeds_of_one_size_it_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    errors = {"aim": rng.uniform(0.3, 0.5, 6), "xtra": rng.uniform(0.3, 0.5, 6)}
    [row] = difference_rows(points_of(errors, [("nano", 100, 1000, seed) for seed in range(6)]))
    expected = stats.ttest_rel(errors["xtra"], errors["aim"]).confidence_interval(0.95)
    assert (row["method_1"], row["method_2"]) == ("xtra", "aim")
    assert (row["seed_low"], row["seed_high"]) == pytest.approx((expected.low, expected.high))
    assert row["size_low"] is None
    assert row["num_lower"] == int((errors["xtra"] < errors["aim"]).sum())


def test_over_sizes_it_is_the_paired_t_test_of_their_means_however_many_seeds() -> None:
    """A second seed that repeats the first made the interval 2.6 times narrower: seeds were taken as further sizes."""
    errors = {"xtra": [0.3, 0.32, 0.37], "aim": [0.35, 0.36, 0.38]}
    expected = stats.ttest_rel(errors["xtra"], errors["aim"]).confidence_interval(0.95)
    for num_seeds in (1, 2):
        settings = [(preset, 100, 1000, seed) for seed in range(num_seeds) for preset in ("a", "b", "c")]
        [row] = difference_rows(points_of({name: num_seeds * values for name, values in errors.items()}, settings))
        assert (row["size_low"], row["size_high"]) == pytest.approx((expected.low, expected.high))
        seeds = (None, None) if num_seeds == 1 else (row["difference"], row["difference"])
        assert (row["seed_low"], row["seed_high"]) == pytest.approx(seeds)


def test_settings_count_within_their_size_and_seed() -> None:
    settings = [(preset, *rest, 0) for preset in ("nano", "micro") for rest in ((10, 1000), (100, 1000), (100, 2000))]
    errors = {"xtra": [0.3] * 6, "aim": [0.31, 0.32, 0.33, 0.33, 0.34, 0.35], "mae": [0.2, *[None] * 5]}
    first, _, third = difference_rows(points_of(errors, settings))
    assert (first["num_settings"], first["num_lower"]) == (6, 6)
    assert first["by_preset"] == pytest.approx({"micro": -0.04, "nano": -0.02})
    assert first["difference"] == pytest.approx(-0.03)
    assert first["size_high"] - first["size_low"] == pytest.approx(2 * stats.t.ppf(0.975, 1) * 0.01)
    assert difference_statement(first) == (
        "XTRA minus AIM: -3.0 points (nano -2.0, micro -4.0; 95% interval over encoder sizes -15.7 to +9.7); "
        "XTRA is lower in 6 of 6 settings."
    )
    assert third["num_settings"] == 1 and third["size_low"] is None
    assert difference_statement(third) == (
        "AIM minus MAE: +11.0 points (no interval); AIM is lower in 0 of 1 settings."
    )


def test_what_one_seed_or_size_alone_has_measured_is_left_out() -> None:
    """A second seed half done looked like chance between seeds, more settings at one size like that size's effect."""
    of_images = {32: -0.06, 128: -0.03, 512: 0.0, 2048: 0.05}
    settings = [("a", images, 1000, 0) for images in of_images] + [("a", 2048, 1000, 1), ("b", 2048, 1000, 0)]
    errors = [0.5 + of_images[images] for _, images, _, _ in settings]
    [row] = difference_rows(points_of({"xtra": errors, "aim": [0.5] * len(errors)}, settings))
    assert row["by_preset"] == pytest.approx({"a": 0.05, "b": 0.05})
    assert (row["seed_low"], row["seed_high"], row["size_low"], row["size_high"]) == pytest.approx((0.05,) * 4)
    assert row["num_settings"] == 3


def test_without_a_setting_that_all_have_there_is_no_interval() -> None:
    settings = [("a", 10, 1000, 0), ("a", 20, 1000, 1), ("b", 20, 1000, 0), ("b", 10, 1000, 1)]
    [row] = difference_rows(points_of({"xtra": [0.4, 0.5, 0.4, 0.5], "aim": [0.3, 0.3, 0.3, 0.3]}, settings))
    assert row["difference"] == pytest.approx(0.15) and row["num_settings"] == 4
    assert row["seed_low"] is row["size_low"] is None


def test_streams_of_unknown_length_are_compared() -> None:
    """Their blank number of images made every pair vanish without a word."""
    points = points_of({"xtra": [0.3], "aim": [0.4]}, [("nano", 10, 1000, 0)])
    [row] = difference_rows(points.assign(unique_images=pd.array([None, None], dtype="Int64")))
    assert row["difference"] == pytest.approx(-0.1)


def test_methods_without_a_setting_in_common_are_not_compared() -> None:
    settings = [("nano", 10, 1000, 0), ("nano", 100, 1000, 0)]
    assert difference_rows(points_of({"xtra": [0.3, None], "aim": [None, 0.3]}, settings)) == []


@pytest.mark.parametrize("num_seeds", [2, 5])
def test_intervals_hold_what_they_are_of(num_seeds: int) -> None:
    """Sizes scatter by 0.01 around 0.02, seeds by 0.003 around their size; each interval holds its own mean in 95%."""
    rng, held_sizes, held_seeds = np.random.default_rng(1), 0, 0
    settings = [(preset, images, 1000, seed) for preset in "abc" for images in (1, 2) for seed in range(num_seeds)]
    for _ in range(300):
        of_size = {preset: rng.normal(0.02, 0.01) for preset in "abc"}
        of_seed = {(preset, seed): rng.normal(0, 0.003) for preset in "abc" for seed in range(num_seeds)}
        noise = [of_size[preset] + of_seed[preset, seed] for preset, _, _, seed in settings]
        [row] = difference_rows(points_of({"xtra": 0.5 + np.array(noise), "aim": [0.5] * len(settings)}, settings))
        held_sizes += row["size_low"] <= 0.02 <= row["size_high"]
        held_seeds += row["seed_low"] <= np.mean(list(of_size.values())) <= row["seed_high"]
    assert 0.92 <= held_sizes / 300 <= 0.98
    assert 0.92 <= held_seeds / 300 <= 0.98


def curves_of(errors: dict[str, dict[float, float]], seed: int = 0) -> pd.DataFrame:
    """Rows of runs of one size and seed that differ in length: error by training FLOPs, per method."""
    rows = [
        {"objective": method, "kind": "trained", "chosen": True, "value": error, "train_flops": flops}
        | {"preset": "nano", "unique_images": 100, "samples_seen": int(flops), "seed": seed}
        | {"params_encoder": PARAMS["nano"]}
        for method, curve in errors.items()
        for flops, error in curve.items()
    ]
    return pd.DataFrame(rows)


def test_at_equal_compute_the_mean_is_over_what_both_cover() -> None:
    """By hand: over log FLOPs from 20 to 80 xtra falls from 0.45 to 0.35; aim is at 0.5 up to 40, then falls to 0.4."""
    errors = {"xtra": {10.0: 0.5, 160.0: 0.3}, "aim": {20.0: 0.5, 40.0: 0.5, 80.0: 0.4}, "mae": {1.0: 0.2, 2.0: 0.1}}
    [row] = compute_difference_rows(curves_of(errors))
    assert (row["flops_low"], row["flops_high"]) == pytest.approx((20, 80))
    assert row["difference"] == pytest.approx((0.45 + 0.35) / 2 - (0.5 + 0.45) / 2)
    assert (row["method_1"], row["num_settings"], row["num_lower"], row["size_low"]) == ("xtra", 1, 1, None)
    assert difference_statement(row) == (
        "XTRA minus AIM over 20 to 80 FLOPs: -7.5 points (no interval); XTRA is lower in 1 of 1 pairs of curves."
    )


def test_a_method_twice_as_cheap_with_equal_errors_is_better_at_equal_compute() -> None:
    curve = {10.0: 0.5, 20.0: 0.4, 40.0: 0.3, 80.0: 0.2}
    dear = {2 * flops: error for flops, error in curve.items()}
    points = pd.concat([curves_of({"xtra": curve, "aim": dear}, seed) for seed in (0, 1)])
    [at_equal_samples] = difference_rows(
        points.assign(samples_seen=points["value"].map({0.5: 1, 0.4: 2, 0.3: 4, 0.2: 8}))
    )
    assert at_equal_samples["difference"] == 0
    [row] = compute_difference_rows(points)
    assert row["difference"] == pytest.approx(-0.1) and row["num_settings"] == 2


def test_a_single_length_is_no_curve_and_gaps_are_none() -> None:
    points = curves_of({"xtra": {10.0: 0.5}, "aim": {5.0: 0.6, 20.0: np.nan, 40.0: 0.4}})
    assert compute_difference_rows(points) == []
    both = pd.concat([points, curves_of({"xtra": {20.0: 0.3}})])
    [row] = compute_difference_rows(both)
    assert (row["flops_low"], row["flops_high"]) == pytest.approx((10, 20))


def test_only_runs_of_different_length_are_a_curve_over_compute() -> None:
    """Two image sizes of one length were joined into one, as if the larger had been trained for longer."""
    points = curves_of({"xtra": {10.0: 0.5, 40.0: 0.4}, "aim": {15.0: 0.5, 60.0: 0.4}})
    assert len(compute_difference_rows(points)) == 1
    assert compute_difference_rows(points.assign(samples_seen=100)) == []
    assert compute_difference_rows(points.assign(samples_seen=[10, 20, 15, 30])) == []


def test_lengths_that_one_seed_alone_has_are_left_out_of_its_curve() -> None:
    both = {"xtra": {10.0: 0.5, 40.0: 0.3}, "aim": {10.0: 0.5, 40.0: 0.5}}
    more = {"xtra": both["xtra"] | {20.0: 0.1}, "aim": both["aim"]}
    [row] = compute_difference_rows(pd.concat([curves_of(both), curves_of(more, seed=1)]))
    assert (row["seed_low"], row["seed_high"]) == pytest.approx((-0.1, -0.1))
