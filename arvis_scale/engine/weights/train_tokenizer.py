"""`weights train-vq`: the VQ tokenizer trained on the images of shards."""

from __future__ import annotations

from pathlib import Path

import torch

from arvis_scale.data.loader import training_batches
from arvis_scale.data.order import SampleOrder
from arvis_scale.data.shards import open_shards
from arvis_scale.data.subsets import all_samples
from arvis_scale.models.teachers.vq_model import VqSize
from arvis_scale.models.teachers.vq_teacher import TrainedVq, train_vq

BATCH_SIZE = 64
# Random resized crops, as D-iGPT's (arXiv 2312.02147), without flips, which not every image survives.
CROP_SCALE = (0.2, 1.0)
CROP_RATIO = (0.75, 4 / 3)


def train_vq_on_shards(
    shards: Path,
    destination: Path,
    *,
    size: VqSize,
    samples_seen: int,
    split: str = "train",
    seed: int = 0,
) -> TrainedVq:
    """Train a VQ tokenizer on `samples_seen` crops of a split's images (rounded up to batches of 64).

    Raises `ValueError` before training when the destination holds something, or the shards do not.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ValueError(f"{destination} exists and holds something; nothing is overwritten, train somewhere else")
    if samples_seen < 1:
        raise ValueError(f"samples_seen={samples_seen} must be at least 1")
    images = open_shards(shards).split(split)
    batches = training_batches(
        images,
        SampleOrder(all_samples(images.shard_sizes, seed), seed),
        image_size=size.image_size,
        crop_scale=CROP_SCALE,
        crop_ratio=CROP_RATIO,
        horizontal_flip=0.0,
        global_batch_size=BATCH_SIZE,
        micro_batch_size=BATCH_SIZE,
        rank=0,
        world_size=1,
        num_workers=0,
        num_samples=-(-samples_seen // BATCH_SIZE) * BATCH_SIZE,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return train_vq((batch["images"] for batch in batches), destination, size=size, seed=seed, device=device)
