"""Subsets: nested, held out, balanced, long-tailed, by class and by manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arvis_scale.data.class_shares import balanced_places, long_tail_places
from arvis_scale.data.sample_sets import LISTED_LIMIT, ListedSamples
from arvis_scale.data.subsets import (
    all_samples,
    first_of,
    held_out_fraction,
    hold_out,
    nested_subset,
    places_of_classes,
    samples_of_manifest,
)

CLASSES = ["ant", "bee", "cat", "dog"]
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [40, 30, 20, 10]))


def test_subsets_of_one_seed_are_nested() -> None:
    large = nested_subset(100, 60, seed=3)
    assert nested_subset(100, 20, seed=3).tolist() == large[:20].tolist()
    assert len(set(large.tolist())) == 60
    assert nested_subset(100, 60, seed=4).tolist() != large.tolist()


def test_no_number_of_unique_images_takes_all() -> None:
    assert sorted(nested_subset(10, None, seed=0).tolist()) == list(range(10))


@pytest.mark.parametrize("unique_images", [0, 1_001])
def test_more_unique_images_than_there_are_is_refused_with_both_numbers(unique_images: int) -> None:
    with pytest.raises(ValueError, match=f"{unique_images:,}.*1,000"):
        nested_subset(1000, unique_images, seed=0)


def test_the_held_out_part_is_disjoint_and_seeded() -> None:
    training, held_out = held_out_fraction(200, 0.1, seed=0)
    assert len(held_out) == 20
    assert sorted([*training, *held_out]) == list(range(200))
    assert held_out.tolist() != held_out_fraction(200, 0.1, seed=1)[1].tolist()


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.001])
def test_a_held_out_fraction_that_leaves_a_part_empty_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="leaves one part empty"):
        held_out_fraction(20, fraction, seed=0)


def test_a_split_too_large_for_a_list_is_held_out_and_nested_shard_by_shard() -> None:
    sizes = np.full(500, LISTED_LIMIT // 400)
    training, held_out = hold_out(sizes, 0.01, seed=0)
    assert len(held_out) == round(sizes.sum() * 0.01) and len(training) + len(held_out) == sizes.sum()
    large, small = first_of(training, 1_000_000, seed=0), first_of(training, 20_000, seed=0)
    assert (len(large), len(small)) == (1_000_000, 20_000)
    shards = np.array([0, 77, 499])
    parts = [set(chosen.of_shards(shards).tolist()) for chosen in (held_out, small, large, training)]
    assert parts[1] < parts[2] < parts[3] and not parts[0] & parts[3]
    assert (np.ptp(small.counts), np.ptp(large.counts)) == (0, 0)  # of equal shards as many from each
    with pytest.raises(ValueError, match="unique_images is 9,999,999"):
        first_of(training, 9_999_999, seed=0)


def test_a_list_and_its_shards_are_of_one_split() -> None:
    sizes = np.array([3, 4])
    pool = all_samples(sizes, seed=0)
    assert isinstance(pool, ListedSamples)
    assert first_of(pool, 5, seed=2).listed().tolist() == nested_subset(7, 5, seed=2).tolist()


def test_a_balanced_subset_has_as_many_of_each_class() -> None:
    assert np.bincount(LABELS[balanced_places(LABELS, 24, 0, CLASSES)]).tolist() == [6, 6, 6, 6]
    assert sorted(np.bincount(LABELS[balanced_places(LABELS, 26, 0, CLASSES)])) == [6, 6, 7, 7]
    assert np.bincount(LABELS[balanced_places(LABELS, None, 0, CLASSES)]).min() == 10


def test_a_balanced_subset_that_a_class_is_too_small_for_is_refused_with_the_largest() -> None:
    largest = len(balanced_places(LABELS, None, 0, CLASSES))
    assert 40 <= largest <= 43
    with pytest.raises(ValueError, match=f"class 'dog' has only 10 images.*at most {largest};"):
        balanced_places(LABELS, largest + 1, 0, CLASSES)


def test_a_long_tail_follows_the_power_of_the_rank() -> None:
    labels = np.repeat(np.arange(50), 2000)
    counts = np.sort(np.bincount(labels[long_tail_places(labels, 8000, 1.0, seed=0)], minlength=50))[::-1]
    quotas = 8000 / np.arange(1, 51) / (1 / np.arange(1, 51)).sum()
    assert counts.sum() == 8000
    assert np.abs(counts - quotas).max() < 1


def test_the_ranks_of_classes_are_seeded() -> None:
    labels = np.repeat(np.arange(20), 50)
    most = {int(np.bincount(labels[long_tail_places(labels, 100, 1.5, seed)]).argmax()) for seed in range(10)}
    assert len(most) > 4


def test_a_class_that_runs_out_gives_all_and_the_others_more() -> None:
    counts = np.bincount(LABELS[long_tail_places(LABELS, 95, 2.0, seed=0)], minlength=4)
    assert counts.sum() == 95 and (counts <= [40, 30, 20, 10]).all()
    assert len(long_tail_places(LABELS, 100, 2.0, seed=0)) == 100
    with pytest.raises(ValueError, match="unique_images is 101.*100"):
        long_tail_places(LABELS, 101, 2.0, seed=0)


def test_without_a_number_no_class_falls_short_of_its_share() -> None:
    labels = np.repeat(np.arange(5), 100)
    counts = np.sort(np.bincount(labels[long_tail_places(labels, None, 1.0, seed=0)]))[::-1]
    assert counts.tolist() == [100, 50, 33, 25, 20]


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array),
    exponent=st.floats(0, 3),
    seed=st.integers(0, 5),
    data=st.data(),
)
def test_class_subsets_are_exact_and_nested(
    labels: np.ndarray, exponent: float, seed: int, data: st.DataObject
) -> None:
    large = data.draw(st.integers(1, len(labels)))
    places = long_tail_places(labels, large, exponent, seed)
    assert len(set(places.tolist())) == len(places) == large
    small = data.draw(st.integers(1, large))
    assert set(long_tail_places(labels, small, exponent, seed).tolist()) <= set(places.tolist())
    balanced = balanced_places(labels, None, seed, list("abcdef"))
    fewer = data.draw(st.integers(1, len(balanced)))
    counts = np.bincount(labels[balanced_places(labels, fewer, seed, list("abcdef"))], minlength=6)[np.unique(labels)]
    assert counts.sum() == fewer and np.ptp(counts) <= 1
    assert set(balanced_places(labels, fewer, seed, list("abcdef")).tolist()) <= set(balanced.tolist())


def test_classes_are_chosen_by_name() -> None:
    assert set(LABELS[places_of_classes(LABELS, ["dog", "bee"], CLASSES)]) == {1, 3}
    assert len(places_of_classes(LABELS, ["dog", "bee"], CLASSES)) == 40
    with pytest.raises(ValueError, match="no class 'dogs'; did you mean 'dog'"):
        places_of_classes(LABELS, ["dogs"], CLASSES)


KEYS = np.array([b"photo_3", b"photo_1", b"photo_22", b"photo_2"])


def test_a_manifest_lists_keys_in_any_order(tmp_path: Path) -> None:
    manifest = tmp_path / "keys.txt"
    manifest.write_text("photo_2\n\n  photo_3\r\n")
    assert samples_of_manifest(manifest, KEYS).tolist() == [0, 3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("photo_2\nphoto_4\nphoto_5\n", "2 keys that the split has not, the first photo_4"),
        ("photo_222222\n", "1 keys that the split has not, the first photo_222222"),
        ("photo_1\nphoto_2\nphoto_1", "photo_1 twice"),
        ("\n", "no key"),
        (None, "cannot be read"),
    ],
)
def test_a_manifest_that_is_not_of_the_split_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    manifest = tmp_path / "keys.txt"
    if text is not None:
        manifest.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        samples_of_manifest(manifest, KEYS)
    assert "\n" not in str(caught.value)
