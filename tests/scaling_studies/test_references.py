"""Which trained runs do not beat raw pixels or their own untrained encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scaling_studies.points import points_table
from scaling_studies.references import missing_references, num_held, references, shortfalls

Row = Callable[..., dict[str, Any]]


def test_a_run_is_held_against_raw_pixels_and_its_own_untrained_encoder(row: Row) -> None:
    points = points_table(
        [
            row("good", 0.10),
            row("close", 0.295),
            row("bad", 0.35),
            row("other", 0.10, preset="micro"),
            row("untrained", 0.30, kind="untrained"),
            row("untrained-micro", 0.05, kind="untrained", preset="micro"),
            row("raw", 0.20, kind="raw_pixels", objective="raw_pixels"),
        ]
    )
    found = {(shortfall.run, shortfall.reference.name): shortfall.verdict for shortfall in shortfalls(points)}
    # 0.295 and 0.30 of 10,000 images: a difference of 0.005 with a standard error of 0.0065.
    assert found == {
        ("close", "raw pixels"): "not lower",
        ("close", "untrained xtra/nano"): "within noise",
        ("bad", "raw pixels"): "not lower",
        ("bad", "untrained xtra/nano"): "not lower",
        ("other", "untrained xtra/micro"): "not lower",
    }
    assert num_held(points) == {"raw pixels": 4, "untrained xtra/nano": 3, "untrained xtra/micro": 1}


def test_seeds_of_a_reference_are_averaged_without_a_smaller_error(row: Row) -> None:
    one = points_table([row("a", 0.3, kind="untrained")])
    three = points_table([row(f"a-s{seed}", 0.29 + 0.01 * seed, kind="untrained", seed=seed) for seed in range(3)])
    (single,), (mean,) = references(one), references(three)
    assert mean.value == pytest.approx(0.3)
    assert mean.error == pytest.approx(single.error, rel=1e-3)


def test_references_that_were_not_measured_are_named(row: Row) -> None:
    points = points_table([row("a"), row("b", objective="aim"), row("u", kind="untrained")])
    assert missing_references(points) == ["raw pixels", "untrained aim/nano"]


def test_options_are_no_seeds(row: Row) -> None:
    """References of two image sizes were averaged, and every run held against what nobody had measured."""
    raw = {"kind": "raw_pixels", "objective": "raw_pixels"}
    points = points_table(
        [
            row("xtra-nano-s0-image_size_32", 0.45),
            row("xtra-nano-s0-image_size_64", 0.45),
            row("xtra-nano-s0-image_size_96", 0.45),
            row("raw-pixels-image_size_32", 0.40, **raw),
            row("raw-pixels-image_size_64", 0.50, **raw),
            row("untrained-xtra-nano-s0-image_size_32", 0.60, kind="untrained"),
            row("untrained-xtra-nano-s1-image_size_32", 0.62, kind="untrained", seed=1),
            row("untrained-xtra-nano-s0-image_size_64", 0.40, kind="untrained"),
        ]
    )
    assert {one.name: one.value for one in references(points)} == {
        "raw pixels (image_size_32)": 0.40,
        "raw pixels (image_size_64)": 0.50,
        "untrained xtra/nano (image_size_32)": pytest.approx(0.61),
        "untrained xtra/nano (image_size_64)": 0.40,
    }
    assert {(found.run, found.reference.name) for found in shortfalls(points)} == {
        ("xtra-nano-s0-image_size_32", "raw pixels (image_size_32)"),
        ("xtra-nano-s0-image_size_64", "untrained xtra/nano (image_size_64)"),
    }
    untold = " (measured in several variants, and names of runs do not say which is theirs)"
    assert missing_references(points) == [f"raw pixels{untold}", f"untrained xtra/nano{untold}"]


def test_seeds_with_subsets_of_their_own_are_seeds(row: Row) -> None:
    names = ("untrained-iGPT-nano-s0-u32-subset_seed_0", "untrained-iGPT-nano-s1-u32-subset_seed_1")
    untrained = [row(name, 0.5, kind="untrained", seed=seed) for seed, name in enumerate(names)]
    points = points_table([row("iGPT-nano-u32-n10-s0", 0.6), *untrained])
    assert [found.reference.name for found in shortfalls(points)] == ["untrained xtra/nano"]
