"""The nearest-neighbor probe: the classes of the training images whose frozen features are the most similar."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

from arvis_scale.evaluation.probe_result import ProbeResult, hold_out_fifth, standardize

# Numbers of neighbors tried; a similarity `s` votes with weight exp(s / TEMPERATURE).
NUM_NEIGHBORS = (1, 5, 10, 20, 50, 100, 200)
TEMPERATURE = 0.07

_Floats = npt.NDArray[np.float32]
_Labels = npt.NDArray[np.int64]


def knn_probe(
    train_features: _Floats, train_labels: _Labels, test_features: _Floats, test_labels: _Labels, *, seed: int = 0
) -> ProbeResult:
    """Return how many test images the weighted vote of their nearest neighbors gets right; features are `N x D`.

    As in DINO (Caron et al., ICCV 2021, section 4.1; Wu et al., CVPR 2018): all neighbors are searched, by cosine
    similarity. Features are standardized first, as for the linear probe. The number of neighbors is the best on a
    seeded fifth of the training images, the smallest among equals.
    """
    train, test = standardize(train_features, test_features)
    num_classes = int(max(train_labels.max(), test_labels.max())) + 1
    fit, held_out = hold_out_fifth(train_labels, seed)
    allowed = [number for number in NUM_NEIGHBORS if number <= len(fit)]
    similar, classes = _neighbors(train[fit], train_labels[fit], train[held_out], max(allowed))
    scores = [
        float((_vote(similar[:, :number], classes[:, :number], num_classes) == train_labels[held_out]).mean())
        for number in allowed
    ]
    best = int(np.argmax(scores))
    similar, classes = _neighbors(train, train_labels, test, allowed[best])
    return ProbeResult.of_predictions(
        _vote(similar, classes, num_classes),
        test_labels,
        chosen={"num_neighbors": allowed[best]},
        held_out_accuracy=scores[best],
        num_train=len(train_labels),
        num_features=train_features.shape[1],
    )


def _neighbors(train: _Floats, labels: _Labels, queries: _Floats, number: int) -> tuple[_Floats, _Labels]:
    """Return similarities and classes of the `number` nearest training images of each query, the nearest first."""
    search = NearestNeighbors(n_neighbors=number, metric="cosine", algorithm="brute").fit(train)
    distances, places = search.kneighbors(queries)
    return 1 - distances, labels[places]


def _vote(similar: _Floats, classes: _Labels, num_classes: int) -> _Labels:
    """Return the class of most weight of each query, the lowest among equals: `Q x k` twice -> `Q`."""
    weights = np.exp(similar.astype(np.float64) / TEMPERATURE)
    queries = np.arange(len(classes))[:, None]
    votes = np.bincount((queries * num_classes + classes).ravel(), weights.ravel(), len(classes) * num_classes)
    return votes.reshape(len(classes), num_classes).argmax(axis=1)
