"""Which training images a probe holds out to choose its settings on: also of sets with rare classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.model_selection import train_test_split

from arvis_scale.config import RunConfig, load_config
from arvis_scale.data.build import build_shards
from arvis_scale.engine.checks import RunChecks
from arvis_scale.evaluation.knn_probe import knn_probe
from arvis_scale.evaluation.linear_probe import linear_probe
from arvis_scale.evaluation.probe_result import hold_out_fifth

RARE = {
    "one class of one image": np.array([0] * 60 + [1] * 39 + [2]),
    "more classes than a fifth of the images": np.repeat(np.arange(100), 2),
    "1,000 images of 1,000 classes": np.random.default_rng(0).integers(0, 1000, 1000),
    "5,000 images of 1,000 classes": np.random.default_rng(1).integers(0, 1000, 5000),
    "two images of one class": np.array([0, 1, 2, 2]),
}


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize(("num_images", "num_classes"), [(10, 2), (1003, 10), (600, 100)])
def test_of_common_classes_the_split_is_scikit_learns(num_images: int, num_classes: int, seed: int) -> None:
    """What was published with it stays as it is."""
    labels = np.random.default_rng(2).permutation(np.arange(num_images) % num_classes)
    expected = train_test_split(np.arange(num_images), test_size=0.2, random_state=seed, stratify=labels)
    for ours, theirs in zip(hold_out_fifth(labels, seed), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("labels", RARE.values(), ids=RARE.keys())
def test_of_rare_classes_a_fifth_is_held_out_and_every_class_is_fitted(labels: npt.NDArray[np.int64]) -> None:
    fit, held_out = hold_out_fifth(labels, 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([fit, held_out])), np.arange(len(labels)))
    assert set(labels[fit]) == set(labels)
    counts = np.bincount(labels)
    in_classes_of_several = counts[labels] > 1
    assert len(held_out) == np.ceil(0.2 * in_classes_of_several.sum())
    assert in_classes_of_several[held_out].all()
    assert (np.abs(np.bincount(labels[held_out], minlength=len(counts)) - counts / 5) <= 1).all()


def test_of_rare_classes_the_split_is_a_function_of_the_seed() -> None:
    labels = RARE["1,000 images of 1,000 classes"]
    (_, first), (_, again), (_, other) = (hold_out_fifth(labels, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


def test_among_equal_classes_those_held_out_are_not_the_first() -> None:
    labels = RARE["more classes than a fifth of the images"]
    _, held_out = hold_out_fifth(labels, 0)
    assert 30 < labels[held_out].mean() < 70


@pytest.mark.parametrize("labels", [np.arange(5), np.zeros(5, dtype=np.int64)], ids=["all single", "one class"])
def test_where_nothing_can_be_held_out_the_error_says_so(labels: npt.NDArray[np.int64]) -> None:
    with pytest.raises(ValueError, match=r"^5 images of [15] classes are too few .*; raise probe_data.train_images"):
        hold_out_fifth(labels, 0)


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
def test_a_probe_bears_a_class_of_one_image(probe) -> None:
    labels = RARE["one class of one image"]
    features = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    features[np.arange(100), labels] += 9
    assert probe(features, labels, features, labels).accuracy > 0.9


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    build_shards("digits", folder)
    return folder


def test_too_few_probe_images_are_refused_before_training(digits: Path) -> None:
    def config(num_images: int) -> RunConfig:
        probe_data = [f"probe_data.shards={digits}", f"probe_data.train_images={num_images}"]
        return load_config("digits", ["name=a", "output=a", "objective=mae", f"data.shards={digits}", *probe_data])

    RunChecks().check_probe_data(config(11))  # more than the classes, so two of one
    with pytest.raises(ValueError, match=r"'train', probe_data.train_images=1: 1 images of 1 classes are too few"):
        RunChecks().check_probe_data(config(1))
