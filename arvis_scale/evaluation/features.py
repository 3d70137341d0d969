"""Frozen features of labelled images: what every probe starts from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from arvis_scale.data.loader import evaluation_batches
from arvis_scale.data.shards import ShardSplit
from arvis_scale.models.encoder import Encoder
from arvis_scale.models.images import normalize

# images `B x 3 x H x W`, ImageNet-normalised -> features `B x D`
FeatureFunction = Callable[[Tensor], Tensor]


def pooled_features(encoder: Encoder) -> FeatureFunction:
    """Return images -> the mean over tokens of the encoder's last layer, before its final norm (XTRA section 4)."""

    def features(images: Tensor) -> Tensor:
        (tokens,) = encoder.layer_outputs(images, [encoder.depth])  # B x N x D
        return tokens.mean(dim=1)

    return features


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
    """Return features `N x D` (float32) and labels `N` of the samples `indices` of a labelled split."""
    if split.labels is None:
        raise ValueError(f"split {split.name!r} has no labels; probe_data must name labelled shards")
    batches = evaluation_batches(
        split, indices, image_size=image_size, batch_size=batch_size, rank=0, world_size=1, num_workers=0
    )
    features = [function(normalize(batch["images"].to(device))).float().cpu().numpy() for batch in batches]
    return np.concatenate(features), split.labels[indices]
