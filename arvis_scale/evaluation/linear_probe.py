"""The linear probe: one linear classifier on frozen, standardised features."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

CONFIDENCE = 0.95
# L2 penalties tried, per mean loss of an image; the strongest first, so that each solution starts the next.
L2_STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


@dataclass(frozen=True)
class ProbeResult:
    """Test accuracy with its Wilson interval."""

    correct: int
    num_test: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    confidence: float
    # L2 penalty chosen on held-out training images.
    l2: float
    # Accuracy on those images, of the classifier that was fitted on the others with that penalty.
    held_out_accuracy: float
    num_train: int
    num_features: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def linear_probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    *,
    seed: int = 0,
) -> ProbeResult:
    """Fit on `N x D` features and measure on others.

    Features are standardised (BatchNorm without affine over the whole training set, as in XTRA section 4); multinomial
    logistic regression to its optimum instead of a swept learning rate, so that the result has no optimiser settings;
    the L2 strength is the best on a seeded fifth of the training images, and the classifier is fitted again on all.
    """
    mean, std = train_features.mean(axis=0), np.sqrt(train_features.var(axis=0) + 1e-6)
    train, test = (train_features - mean) / std, (test_features - mean) / std
    l2, held_out_accuracy = _choose_strength(train, train_labels, seed)
    classifier = _classifier()
    _fit(classifier, train, train_labels, l2)
    correct = int((classifier.predict(test) == test_labels).sum())
    interval = binomtest(correct, len(test_labels)).proportion_ci(CONFIDENCE, method="wilson")
    return ProbeResult(
        correct=correct,
        num_test=len(test_labels),
        accuracy=correct / len(test_labels),
        accuracy_low=float(interval.low),
        accuracy_high=float(interval.high),
        confidence=CONFIDENCE,
        l2=l2,
        held_out_accuracy=held_out_accuracy,
        num_train=len(train_labels),
        num_features=train_features.shape[1],
    )


def _classifier() -> LogisticRegression:
    return LogisticRegression(max_iter=500, tol=1e-3, warm_start=True)


def _fit(classifier: LogisticRegression, features: np.ndarray, labels: np.ndarray, l2: float) -> None:
    # scikit-learn weighs the sum of the losses by C against half the squared norm; here the mean is weighed by 1.
    classifier.set_params(C=1.0 / (l2 * len(labels)))
    with warnings.catch_warnings():
        # The weakest penalties need not converge; the held-out images judge what was reached.
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(features, labels)


def _choose_strength(features: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the best penalty and its accuracy on the held-out images."""
    fit, held_out = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=seed, stratify=labels)
    classifier = _classifier()
    scores = []
    for l2 in L2_STRENGTHS:
        _fit(classifier, features[fit], labels[fit], l2)
        scores.append(classifier.score(features[held_out], labels[held_out]))
    # The strongest penalty among equals.
    best = int(np.argmax(scores))
    return L2_STRENGTHS[best], float(scores[best])
