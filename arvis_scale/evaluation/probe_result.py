"""What probes and fine-tuning report, and the training images that a probe holds out to choose its settings."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from sklearn.model_selection import train_test_split

from arvis_scale.data.apportionment import apportion

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on test images with its Wilson interval."""

    correct: int
    num_test: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    confidence: float


def accuracy_of(predicted: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Accuracy:
    """Return the accuracy of one predicted class per test image."""
    correct, num_test = int((predicted == labels).sum()), len(labels)
    interval = binomtest(correct, num_test).proportion_ci(CONFIDENCE, method="wilson")
    return Accuracy(
        correct=correct,
        num_test=num_test,
        accuracy=correct / num_test,
        accuracy_low=float(interval.low),
        accuracy_high=float(interval.high),
        confidence=CONFIDENCE,
    )


@dataclass(frozen=True)
class ProbeResult(Accuracy):
    """What a probe found."""

    # Settings chosen on held-out training images, by name: `l2`, `learning_rate`, `num_neighbors`.
    chosen: dict[str, float]
    # Accuracy on those images, of the classifier that was fitted on the others with these settings.
    held_out_accuracy: float
    num_train: int
    # Channels that the classifier reads, of an image or of each of its tokens.
    num_features: int

    @classmethod
    def of_predictions(
        cls,
        predicted: npt.NDArray[Any],
        labels: npt.NDArray[Any],
        *,
        chosen: dict[str, float],
        held_out_accuracy: float,
        num_train: int,
        num_features: int,
    ) -> ProbeResult:
        """Return the result of one predicted class and one label per test image."""
        return cls(
            **asdict(accuracy_of(predicted, labels)),
            chosen=chosen,
            held_out_accuracy=held_out_accuracy,
            num_train=num_train,
            num_features=num_features,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, the chosen settings among them, as `result.json` holds them."""
        fields = asdict(self)
        chosen = fields.pop("chosen")
        return {**fields, **chosen}


def hold_out_fifth(labels: npt.NDArray[Any], seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the numbers of the training images to fit on, and of the seeded fifth of each class to choose on.

    Every class keeps an image to fit on; one of a single image is not chosen on. Raises `ValueError` where no class
    has two images, and where there is one class alone.
    """
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(counts) < 2 or counts.max() < 2:
        raise ValueError(
            f"{len(labels)} images of {len(counts)} classes are too few to fit a probe on, which takes two classes and "
            "two images of one of them; raise probe_data.train_images or take other shards"
        )
    # What scikit-learn's split asks for: two images of each class, and room for all classes among the held-out ones.
    if counts.min() >= 2 and math.ceil(0.2 * len(labels)) >= len(counts):
        fit, held_out = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=seed, stratify=labels)
        return fit, held_out
    return _hold_out_of_rare(classes, counts, np.random.default_rng(seed))


def _hold_out_of_rare(
    classes: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], generator: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split off a fifth of the images of those classes that have several; `counts`: the images of each class."""
    several = generator.permutation(np.flatnonzero(counts > 1))  # of equal classes the first is given more
    num_images = counts[several]
    num_held_out = np.zeros_like(counts)
    num_held_out[several] = apportion(math.ceil(0.2 * num_images.sum()), num_images.astype(np.float64), num_images - 1)
    order = generator.permutation(len(classes))
    by_class = order[np.argsort(classes[order], kind="stable")]
    place_in_class = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    is_held_out = place_in_class < np.repeat(num_held_out, counts)
    return generator.permutation(by_class[~is_held_out]), generator.permutation(by_class[is_held_out])


def standardize(
    train: npt.NDArray[np.float32], test: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return `N x D` features with mean 0 and variance 1 over the training images: BatchNorm without affine."""
    mean, std = train.mean(axis=0), np.sqrt(train.var(axis=0) + 1e-6)
    return (train - mean) / std, (test - mean) / std
