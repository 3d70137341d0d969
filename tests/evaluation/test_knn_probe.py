"""The nearest-neighbor probe gives what counting by hand gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from arvis_scale.evaluation.knn_probe import NUM_NEIGHBORS, TEMPERATURE, knn_probe

Blobs = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]


def blobs(distance: float, num_train: int = 300) -> Blobs:
    """Three classes around corners, 6 features, and 200 test images."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, num_train + 200)
    features = generator.normal(size=(num_train + 200, 6)).astype(np.float32)
    features[np.arange(num_train + 200), labels] += distance
    return features[:num_train], labels[:num_train], features[num_train:], labels[num_train:]


def slow_predictions(data: Blobs, number: int) -> list[int]:
    """One image at a time: all similarities, the first `number` of them, their votes."""
    train, labels, test, _ = (part.astype(np.float64) for part in data)
    mean, std = train.mean(axis=0), np.sqrt(train.var(axis=0) + 1e-6)
    train, test = (train - mean) / std, (test - mean) / std
    predicted = []
    for image in test:
        similar = train @ image / np.linalg.norm(train, axis=1) / np.linalg.norm(image)
        votes = [0.0, 0.0, 0.0]
        for place in np.argsort(-similar)[:number]:
            votes[int(labels[place])] += np.exp(similar[place] / TEMPERATURE)
        predicted.append(int(np.argmax(votes)))
    return predicted


@pytest.mark.parametrize("distance", [0.5, 1.0, 3.0])
def test_it_is_the_weighted_vote_of_the_most_similar_images(distance: float) -> None:
    data = blobs(distance)
    result = knn_probe(*data)
    assert result.chosen["num_neighbors"] in NUM_NEIGHBORS
    assert result.correct == (slow_predictions(data, int(result.chosen["num_neighbors"])) == data[3]).sum()
    assert result.accuracy_low < result.accuracy < result.accuracy_high and result.num_train == 300


def test_more_neighbors_are_chosen_where_classes_overlap() -> None:
    near, far = knn_probe(*blobs(0.7)), knn_probe(*blobs(20.0))
    assert near.chosen["num_neighbors"] > 1
    assert far.chosen["num_neighbors"] == 1 and far.accuracy == 1.0


def test_few_images_are_enough() -> None:
    result = knn_probe(*blobs(20.0, num_train=15))
    assert result.accuracy > 0.95 and result.chosen["num_neighbors"] <= 12


def test_labels_without_relation_give_chance() -> None:
    train, labels, test, test_labels = blobs(3.0)
    result = knn_probe(train, np.random.default_rng(1).permutation(labels), test, test_labels)
    assert result.accuracy < 0.5
