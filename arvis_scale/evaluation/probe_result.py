"""What probes and fine-tuning report, and the training images that a probe holds out to choose its settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from sklearn.model_selection import train_test_split

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
    """Return the numbers of the training images to fit on, and of the seeded fifth of each class to choose on."""
    fit, held_out = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=seed, stratify=labels)
    return fit, held_out


def standardize(
    train: npt.NDArray[np.float32], test: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return `N x D` features with mean 0 and variance 1 over the training images: BatchNorm without affine."""
    mean, std = train.mean(axis=0), np.sqrt(train.var(axis=0) + 1e-6)
    return (train - mean) / std, (test - mean) / std
