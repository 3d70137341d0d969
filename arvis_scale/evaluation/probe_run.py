"""Probes of a run's encoder, and of raw pixels for reference, on the labelled images that the run's config names."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from arvis_scale.config import RunConfig
from arvis_scale.data.shards import ShardedDataset, open_shards
from arvis_scale.data.subsets import nested_subset
from arvis_scale.evaluation.features import FeatureFunction, extract_features, pooled_features
from arvis_scale.evaluation.linear_probe import ProbeResult, linear_probe
from arvis_scale.models.encoder import Backbone


def open_probe_data(config: RunConfig) -> ShardedDataset | None:
    """Open `probe_data.shards`; None when the run is not to be probed, `ValueError` when a split has no labels."""
    if config.probe_data.shards is None:
        return None
    dataset = open_shards(config.probe_data.shards)
    for name in (config.probe_data.train_split, config.probe_data.test_split):
        if dataset.split(name).labels is None:
            raise ValueError(f"{config.probe_data.shards}: split {name!r} has no labels; name labelled probe_data")
    return dataset


def probe_encoder(encoder: Backbone, config: RunConfig, device: torch.device) -> dict[str, Any]:
    """Return the result of each probe of the fp32 `encoder` by name; empty without probe data.

    `linear`: after the last layer; for iGPT after the layer that is best on held-out training images (Chen et al., ICML
    2020, section 4.1). `linear_by_layer`: a list over all layers, for iGPT and where `probe_data.every_layer` asks.
    """
    encoder = encoder.to(device).eval()
    best_layer = config.objective == "igpt"
    every_layer = best_layer or config.probe_data.every_layer
    layers = range(1, encoder.depth + 1) if every_layer else [encoder.depth]
    results = _probe(pooled_features(encoder, layers), config, device)
    if not results:
        return {}
    by_layer = [{"layer": layer, **result.as_dict()} for layer, result in zip(layers, results, strict=True)]
    chosen = max(by_layer, key=lambda result: result["held_out_accuracy"]) if best_layer else by_layer[-1]
    return {"linear": chosen, "linear_by_layer": by_layer} if every_layer else {"linear": chosen}


def probe_raw_pixels(config: RunConfig) -> dict[str, Any]:
    """Return the same probe on the pixels themselves (3 * image_size^2 features)."""
    results = _probe(lambda images: images.flatten(start_dim=1)[:, None], config, torch.device("cpu"))
    return {"linear": results[0].as_dict()} if results else {}


def _probe(function: FeatureFunction, config: RunConfig, device: torch.device) -> list[ProbeResult]:
    """Return a probe of each layer that `function` gives; empty without probe data."""
    dataset = open_probe_data(config)
    if dataset is None:
        return []
    train, test = dataset.split(config.probe_data.train_split), dataset.split(config.probe_data.test_split)
    train_indices = np.arange(len(train))
    if config.probe_data.train_images is not None and config.probe_data.train_images < len(train):
        train_indices = nested_subset(len(train), config.probe_data.train_images, seed=0)
    extract = partial(extract_features, function, image_size=config.image_size, device=device)
    train_features, train_labels = extract(train, train_indices)  # N x L x D
    test_features, test_labels = extract(test, np.arange(len(test)))
    return [
        linear_probe(train_features[:, layer], train_labels, test_features[:, layer], test_labels)
        for layer in range(train_features.shape[1])
    ]
