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
from arvis_scale.evaluation.linear_probe import linear_probe
from arvis_scale.models.encoder import Encoder


def open_probe_data(config: RunConfig) -> ShardedDataset | None:
    """Open `probe_data.shards`; None when the run is not to be probed, `ValueError` when a split has no labels."""
    if config.probe_data.shards is None:
        return None
    dataset = open_shards(config.probe_data.shards)
    for name in (config.probe_data.train_split, config.probe_data.test_split):
        if dataset.split(name).labels is None:
            raise ValueError(f"{config.probe_data.shards}: split {name!r} has no labels; name labelled probe_data")
    return dataset


def probe_encoder(encoder: Encoder, config: RunConfig, device: torch.device) -> dict[str, dict[str, Any]]:
    """Return the result of each probe by name ("linear") for the fp32 `encoder`; empty without probe data."""
    encoder = encoder.to(device).eval()
    return _probe(pooled_features(encoder), config, device)


def probe_raw_pixels(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Return the same probes on the pixels themselves (3 * image_size^2 features)."""
    return _probe(lambda images: images.flatten(start_dim=1), config, torch.device("cpu"))


def _probe(function: FeatureFunction, config: RunConfig, device: torch.device) -> dict[str, dict[str, Any]]:
    dataset = open_probe_data(config)
    if dataset is None:
        return {}
    train, test = dataset.split(config.probe_data.train_split), dataset.split(config.probe_data.test_split)
    train_indices = np.arange(len(train))
    if config.probe_data.train_images is not None and config.probe_data.train_images < len(train):
        train_indices = nested_subset(len(train), config.probe_data.train_images, seed=0)
    extract = partial(extract_features, function, image_size=config.image_size, device=device)
    train_features = extract(train, train_indices)
    test_features = extract(test, np.arange(len(test)))
    return {"linear": linear_probe(*train_features, *test_features).as_dict()}
