"""The linear probe: one linear classifier on frozen, standardised features."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from arvis_scale.evaluation.probe_result import ProbeResult, hold_out_fifth, standardize

# L2 penalties tried, per mean loss of an image; the strongest first, so that each solution starts the next.
L2_STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


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
    train, test = standardize(train_features, test_features)
    l2, held_out_accuracy = _choose_strength(train, train_labels, seed)
    classifier = _classifier()
    _fit(classifier, train, train_labels, l2)
    return ProbeResult.of_predictions(
        classifier.predict(test),
        test_labels,
        chosen={"l2": l2},
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
    fit, held_out = hold_out_fifth(labels, seed)
    classifier = _classifier()
    scores = []
    for l2 in L2_STRENGTHS:
        _fit(classifier, features[fit], labels[fit], l2)
        scores.append(classifier.score(features[held_out], labels[held_out]))
    # The strongest penalty among equals.
    best = int(np.argmax(scores))
    return L2_STRENGTHS[best], float(scores[best])
