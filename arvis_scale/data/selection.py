"""Which images a run trains on and which it validates on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arvis_scale.config import DataConfig
from arvis_scale.data.shards import ShardedDataset, ShardSplit, open_shards
from arvis_scale.data.subsets import held_out_fraction, nested_subset


@dataclass(frozen=True)
class Selection:
    """Indices into the splits of one data set."""

    dataset: ShardedDataset
    train_split: ShardSplit
    train_indices: np.ndarray
    validation_split: ShardSplit
    validation_indices: np.ndarray


def select_images(config: DataConfig, unique_images: int | None) -> Selection:
    """Open the shards and choose the images.

    Raises `ValueError` when a split is missing or `unique_images` exceeds what the train split offers.
    """
    dataset = open_shards(config.shards)
    train_split = dataset.split(config.train_split)
    validation_name = config.validation_split or ("test" if "test" in dataset.splits else None)
    if validation_name is None:
        pool, held_out = held_out_fraction(len(train_split), config.validation_fraction, seed=config.subset_seed)
        validation_split, validation_indices = train_split, held_out
    else:
        pool = np.arange(len(train_split))
        validation_split = dataset.split(validation_name)
        validation_indices = np.arange(len(validation_split))
    if config.validation_images is not None and config.validation_images < len(validation_indices):
        chosen = nested_subset(len(validation_indices), config.validation_images, seed=config.subset_seed)
        validation_indices = validation_indices[np.sort(chosen)]
    try:
        train_indices = pool[nested_subset(len(pool), unique_images, seed=config.subset_seed)]
    except ValueError as error:
        raise ValueError(f"{config.shards}, split {config.train_split!r}: {error}") from error
    return Selection(dataset, train_split, train_indices, validation_split, validation_indices)
