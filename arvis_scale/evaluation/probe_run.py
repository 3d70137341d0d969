"""Probes of a run's encoder, and of raw pixels for reference, on the labelled images that the run's config names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arvis_scale.config import RunConfig
from arvis_scale.data.shards import ShardedDataset, ShardSplit, open_shards
from arvis_scale.data.subsets import nested_subset
from arvis_scale.evaluation.attentive_probe import attentive_probe, num_heads_of
from arvis_scale.evaluation.features import (
    FeatureFunction,
    averaged_tokens,
    extract_features,
    labels_of,
    pooled_features,
)
from arvis_scale.evaluation.frozen_tokens import ComputedTokens, stored_if_small
from arvis_scale.evaluation.knn_probe import knn_probe
from arvis_scale.evaluation.linear_probe import linear_probe
from arvis_scale.evaluation.probe_result import hold_out_fifth
from arvis_scale.models.encoder import Backbone

# Probes of one vector per image: its features after a layer.
POOLED_PROBES = {"linear": linear_probe, "knn": knn_probe}


def open_probe_data(config: RunConfig) -> ShardedDataset | None:
    """Open `probe_data.shards`; None when the run is not to be probed, `ValueError` when a split has no labels."""
    if config.probe_data.shards is None:
        return None
    dataset = open_shards(config.probe_data.shards)
    for name in (config.probe_data.train_split, config.probe_data.test_split):
        if dataset.split(name).labels is None:
            raise ValueError(f"{config.probe_data.shards}: split {name!r} has no labels; name labelled probe_data")
    return dataset


def check_probe_data(config: RunConfig) -> None:
    """Raise `ValueError` when the labelled images that `config` names are not there, or too few to fit a probe on."""
    dataset = open_probe_data(config)
    if dataset is None:
        return
    try:
        hold_out_fifth(labels_of(*training_images(dataset, config)), seed=0)
    except ValueError as error:
        raise ValueError(
            f"{config.probe_data.shards}: split {config.probe_data.train_split!r}, probe_data.train_images="
            f"{config.probe_data.train_images}: {error}"
        ) from error


def probe_encoder(encoder: Backbone, config: RunConfig, device: torch.device) -> dict[str, Any]:
    """Return the results of `probe_data.kinds` for the fp32 `encoder` by name; empty without probe data.

    `linear`, `knn`: after the last layer; for iGPT after the layer that is best on held-out training images (Chen et
    al., ICML 2020, section 4.1). `linear_by_layer`, `knn_by_layer`: a list over all layers, for iGPT and where
    `probe_data.every_layer` asks. `attentive`: of the means of the last six layers' tokens.
    """
    dataset = open_probe_data(config)
    if dataset is None:
        return {}
    encoder = encoder.to(device).eval()
    best_layer = config.objective == "igpt"
    every_layer = best_layer or config.probe_data.every_layer
    layers = range(1, encoder.depth + 1) if every_layer else [encoder.depth]
    kinds = [kind for kind in config.probe_data.kinds if kind in POOLED_PROBES]
    results: dict[str, Any] = {}
    by_kind = _probe_layers(pooled_features(encoder, layers), kinds, dataset, config, device)
    for kind, of_layers in by_kind.items():
        by_layer = [{"layer": layer, **result} for layer, result in zip(layers, of_layers, strict=True)]
        results[kind] = max(by_layer, key=lambda result: result["held_out_accuracy"]) if best_layer else by_layer[-1]
        if every_layer:
            results[f"{kind}_by_layer"] = by_layer
    if "attentive" in config.probe_data.kinds:
        results["attentive"] = _probe_attentively(encoder, dataset, config, device)
    return results


def probe_raw_pixels(config: RunConfig) -> dict[str, Any]:
    """Return the linear and the knn probe, as far as asked for, of the pixels themselves (3 * image_size^2 features).

    `linear` is there in any case: it is what studies compare with.
    """
    dataset = open_probe_data(config)
    if dataset is None:
        return {}
    kinds = [kind for kind in POOLED_PROBES if kind == "linear" or kind in config.probe_data.kinds]
    by_kind = _probe_layers(_pixels, kinds, dataset, config, torch.device("cpu"))
    return {kind: of_layers[0] for kind, of_layers in by_kind.items()}


def _pixels(images: Tensor) -> Tensor:
    return images.flatten(start_dim=1)[:, None]  # B x 1 x 3HW


def _probe_layers(
    function: FeatureFunction, kinds: Sequence[str], dataset: ShardedDataset, config: RunConfig, device: torch.device
) -> dict[str, list[dict[str, Any]]]:
    """Return the results of each kind of probe of each layer that `function` gives; the features serve all kinds."""
    if not kinds:
        return {}
    train, train_indices = training_images(dataset, config)
    test = dataset.split(config.probe_data.test_split)
    extract = partial(extract_features, function, image_size=config.image_size, device=device)
    train_features, train_labels = extract(train, train_indices)  # N x L x D
    test_features, test_labels = extract(test, np.arange(len(test)))
    return {
        kind: [
            POOLED_PROBES[kind](train_features[:, layer], train_labels, test_features[:, layer], test_labels).as_dict()
            for layer in range(train_features.shape[1])
        ]
        for kind in kinds
    }


def _probe_attentively(
    encoder: Backbone, dataset: ShardedDataset, config: RunConfig, device: torch.device
) -> dict[str, Any]:
    tokens = partial(
        ComputedTokens,
        averaged_tokens(encoder),
        image_size=config.image_size,
        device=device,
        num_workers=config.data.num_workers,
    )
    train = stored_if_small(tokens(*training_images(dataset, config)), config.probe_data.token_memory_gib * 2**30)
    test = dataset.split(config.probe_data.test_split)
    result = attentive_probe(train, tokens(test, np.arange(len(test))), num_heads=num_heads_of(encoder.width))
    return result.as_dict()


def training_images(dataset: ShardedDataset, config: RunConfig) -> tuple[ShardSplit, npt.NDArray[np.int64]]:
    """Return the train split of the probe data, and the numbers of the images in it that the probes are fitted on."""
    train = dataset.split(config.probe_data.train_split)
    limit = config.probe_data.train_images
    if limit is None or limit >= len(train):
        return train, np.arange(len(train))
    return train, nested_subset(len(train), limit, seed=0)
