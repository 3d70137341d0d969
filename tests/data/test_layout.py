"""Splits, classes and keys as paths give them."""

from __future__ import annotations

import pytest

from arvis_scale.data.layout import assign_places


def _splits_and_classes(*paths: str) -> list[tuple[str, str | None]]:
    return [(place.split, place.class_name) for place in assign_places(paths)]


def test_class_folders_without_splits_are_a_train_split() -> None:
    assert _splits_and_classes("cat/1.jpg", "dog/1.jpg") == [("train", "cat"), ("train", "dog")]


def test_split_folders_are_splits() -> None:
    paths = ("train/cat/1.jpg", "val/cat/1.jpg", "test/dog/1.jpg")
    assert _splits_and_classes(*paths) == [("train", "cat"), ("val", "cat"), ("test", "dog")]


def test_a_wrapping_folder_falls_away_with_no_trace_in_the_keys() -> None:
    wrapped = assign_places(["data/cifar/train/a b/1.jpg", "data/cifar/train/a_b/1.jpg"])
    assert wrapped == assign_places(["train/a b/1.jpg", "train/a_b/1.jpg"])


def test_a_single_class_is_a_class() -> None:
    assert _splits_and_classes("cat/1.jpg", "cat/2.jpg") == [("train", "cat")] * 2


def test_a_split_with_one_image_outside_class_folders_is_unlabelled() -> None:
    paths = ("train/cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg", "test/1.jpg")
    assert _splits_and_classes(*paths) == [("train", "cat"), ("train", "dog"), ("test", None), ("test", None)]


def test_train_beside_other_classes_is_a_class() -> None:
    assert _splits_and_classes("bus/1.jpg", "train/1.jpg") == [("train", "bus"), ("train", "train")]


@pytest.mark.parametrize("stray", ["extra/cat/1.jpg", "1.jpg"])
def test_splits_beside_anything_else_are_refused(stray: str) -> None:
    with pytest.raises(ValueError, match="stands beside"):
        assign_places(["train/cat/1.jpg", stray])


def test_keys_come_from_the_path() -> None:
    assert [place.key for place in assign_places(["train/cat/0001.jpg"])] == ["train_cat_0001"]


def test_keys_are_unique_and_hold_nothing_that_webdataset_would_cut() -> None:
    paths = ["a b/x.y.jpg", "a_b/x_y.JPG", "a_b/x_y.png", "été/猫.jpg", "été/犬.jpg", "c/" + "long" * 60 + ".png"]
    keys = [place.key for place in assign_places(paths)]
    assert len(set(keys)) == len(paths)
    assert all(key.isascii() and len(key) <= 90 and key.replace("_", "").replace("-", "").isalnum() for key in keys)


def test_keys_do_not_depend_on_the_order_of_the_source() -> None:
    paths = ["a b/1.jpg", "a_b/1.jpg", "c/1.jpg"]
    forward = [place.key for place in assign_places(paths)]
    backward = [place.key for place in assign_places(paths[::-1])]
    assert forward == backward[::-1]
