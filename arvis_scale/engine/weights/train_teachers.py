"""`weights train-vq` and `weights train-clip`: small teachers trained on the images of shards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from arvis_scale.data.loader import evaluation_batches, training_batches
from arvis_scale.data.order import SampleOrder
from arvis_scale.data.shards import open_shards
from arvis_scale.data.subsets import all_samples
from arvis_scale.engine.weights.new_folder import check_free, new_folder
from arvis_scale.models.small_clip import SmallClip, train_small_clip
from arvis_scale.models.teachers.vq_model import VqSize
from arvis_scale.models.teachers.vq_teacher import TrainedVq, train_vq

BATCH_SIZE = 64
# Random resized crops, as D-iGPT's (arXiv 2312.02147), without flips, which not every image survives.
CROP_SCALE = (0.2, 1.0)
CROP_RATIO = (0.75, 4 / 3)
# A step of the small CLIP model sees so many images of each of so many classes.
IMAGES_PER_CLASS = 4
MAX_CLASSES = 64


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
    check_free(destination, "train")
    _check_length(samples_seen)
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
    with new_folder(destination) as folder:
        trained = train_vq((batch["images"] for batch in batches), folder, size=size, seed=seed, device=device)
    return replace(trained, folder=destination)


def train_clip_on_shards(
    shards: Path,
    destination: Path,
    *,
    image_size: int,
    patch_size: int,
    width: int,
    depth: int,
    samples_seen: int,
    split: str = "train",
    seed: int = 0,
) -> SmallClip:
    """Train a small CLIP model on the labelled images of a split, which are held in memory, and on its class names.

    `image_size`, `patch_size`: pixels. `width`, `depth`: of the vision tower. `samples_seen`: images, repeats counted,
    rounded up to whole steps. Raises `ValueError` before training when the destination holds something, the shards
    have no labels, or sizes do not fit.
    """
    check_free(destination, "train")
    _check_length(samples_seen)
    dataset = open_shards(shards)
    images = dataset.split(split)
    if not dataset.classes:
        raise ValueError(f"{shards} has no class names to write captions with; train on labelled images")
    batches = evaluation_batches(
        images, np.arange(len(images)), image_size=image_size, batch_size=250, rank=0, world_size=1, num_workers=0
    )
    with new_folder(destination) as folder:
        trained = train_small_clip(
            ((batch["images"], batch["labels"]) for batch in batches),
            dataset.classes,
            folder,
            image_size=image_size,
            patch_size=patch_size,
            width=width,
            depth=depth,
            steps=-(-samples_seen // (IMAGES_PER_CLASS * min(len(dataset.classes), MAX_CLASSES))),
            images_per_class=IMAGES_PER_CLASS,
            max_classes_per_step=MAX_CLASSES,
            seed=seed,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )
    return replace(trained, folder=destination)


def _check_length(samples_seen: int) -> None:
    if samples_seen < 1:
        raise ValueError(f"samples_seen={samples_seen} must be at least 1")
