"""Frozen features of labelled images: what every probe starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arvis_scale.data.loader import evaluation_batches
from arvis_scale.data.shards import ShardSplit
from arvis_scale.models.encoder import Backbone
from arvis_scale.models.images import normalize

# Layers whose tokens the attentive probe averages.
NUM_LAST_LAYERS = 6

# images `B x 3 x H x W`, ImageNet-normalised -> features of L layers `B x L x D`, or of n tokens `B x n x D`
FeatureFunction = Callable[[Tensor], Tensor]


def pooled_features(encoder: Backbone, layers: Sequence[int]) -> FeatureFunction:
    """Return images -> the means over tokens after each of `layers`, counted from 1, all from one forward pass.

    Tokens are taken before the encoder's final norm (XTRA section 4), or after the norm that the encoder asks for.
    """

    def features(images: Tensor) -> Tensor:
        outputs = encoder.layer_outputs(images, layers)  # B x N x D each
        normed = [encoder.feature_norm(layer)(output) for layer, output in zip(layers, outputs, strict=True)]
        return torch.stack([tokens.mean(dim=1) for tokens in normed], dim=1)

    return features


def averaged_tokens(encoder: Backbone) -> FeatureFunction:
    """Return images -> the tokens `B x n x D`, each the mean over the last six layers, before the final norm."""
    layers = range(max(1, encoder.depth - NUM_LAST_LAYERS + 1), encoder.depth + 1)

    def tokens(images: Tensor) -> Tensor:
        return reduce(torch.add, encoder.layer_outputs(images, layers)) / len(layers)

    return tokens


def labels_of(split: ShardSplit, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the class numbers of the samples `indices`; raises `ValueError` unless every image of `split` has one."""
    labels = split.labels
    if labels is None:
        raise ValueError(f"split {split.name!r} has no labels; probe_data must name labelled shards")
    return labels[indices]


@torch.inference_mode()
def extract_features(
    function: FeatureFunction,
    split: ShardSplit,
    indices: np.ndarray,
    *,
    image_size: int,
    device: torch.device,
    batch_size: int = 250,
) -> tuple[np.ndarray, np.ndarray]:
    """Return features `N x L x D` (float32) and labels `N` of the samples `indices` of a labelled split."""
    labels = labels_of(split, indices)
    batches = evaluation_batches(
        split, indices, image_size=image_size, batch_size=batch_size, rank=0, world_size=1, num_workers=0
    )
    features = [function(normalize(batch["images"].to(device))).float().cpu().numpy() for batch in batches]
    return np.concatenate(features), labels
