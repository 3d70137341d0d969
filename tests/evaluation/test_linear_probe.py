"""The linear probe finds what a linear classifier can find, and says how sure it is."""

import numpy as np
import pytest
from scipy.stats import norm

from arvis_scale.evaluation.linear_probe import linear_probe


@pytest.fixture
def blobs():
    """Three classes around corners, 8 features; the last 300 of 700 are the test set."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 700)
    features = generator.normal(size=(700, 8)).astype(np.float32)
    features[np.arange(700), labels] += 3.0
    return features[:400], labels[:400], features[400:], labels[400:]


def test_separable_classes_are_found(blobs):
    result = linear_probe(*blobs)
    assert result.accuracy > 0.93  # the Bayes rate of these blobs is 0.966
    assert result.accuracy == result.correct / 300


def test_interval_is_wilsons(blobs):
    result = linear_probe(*blobs)
    z = norm.ppf(0.975)
    centre = (result.accuracy + z**2 / 600) / (1 + z**2 / 300)
    half = z / (1 + z**2 / 300) * np.sqrt(result.accuracy * (1 - result.accuracy) / 300 + z**2 / (4 * 300**2))
    assert result.accuracy_low == pytest.approx(centre - half)
    assert result.accuracy_high == pytest.approx(centre + half)


def test_scale_and_shift_of_a_feature_do_not_matter(blobs):
    train, train_labels, test, test_labels = blobs
    scale = np.logspace(-2, 2, 8, dtype=np.float32)
    moved = linear_probe(train * scale + 5, train_labels, test * scale + 5, test_labels)
    assert moved.correct == linear_probe(*blobs).correct


def test_labels_without_relation_give_chance(blobs):
    train, train_labels, test, _ = blobs
    shuffled = np.random.default_rng(1).permutation(train_labels)
    result = linear_probe(train, shuffled, test, np.random.default_rng(2).integers(0, 3, 300))
    assert result.accuracy_low < 1 / 3 < result.accuracy_high


def test_overfitting_is_held_back_by_the_chosen_penalty():
    """More features than images: the penalty is chosen on held-out images, not at the weakest."""
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, 1120)
    features = generator.normal(size=(1120, 200)).astype(np.float32)
    features[:, 0] += 1.5 * labels
    result = linear_probe(features[:120], labels[:120], features[120:], labels[120:])
    assert result.chosen["l2"] > 1e-5
    assert result.accuracy > 0.6
