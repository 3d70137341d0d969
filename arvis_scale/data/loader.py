"""Batches for training and evaluation: torch's DataLoader over positions of the stream, so that resuming is seeking.

A batch is a dict of tensors: `images` (B x 3 x H x W, uint8), `sample_seeds` (B, int64), `labels` (B, int64, when
the split is labelled) and what `training_batches` and `evaluation_batches` add.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from arvis_scale.data.augment import evaluation_view, training_view
from arvis_scale.data.order import SampleOrder, evaluation_seeds, micro_batch_positions, sample_seeds
from arvis_scale.data.shards import ShardSplit

Batch = dict[str, torch.Tensor]

# (sample numbers, sample seeds, what else the batch carries): all a worker needs to make a batch.
_Request = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], dict[str, torch.Tensor]]


def training_batches(
    split: ShardSplit,
    subset: npt.NDArray[np.int64],
    *,
    image_size: int,
    crop_scale: tuple[float, float],
    crop_ratio: tuple[float, float],
    horizontal_flip: float,
    seed: int,
    global_batch_size: int,
    micro_batch_size: int,
    rank: int,
    world_size: int,
    num_workers: int,
    num_samples: int,
    start_samples: int = 0,
) -> Iterator[Batch]:
    """One rank's micro batches of stream positions `start_samples` up to `num_samples`, the end of the whole run.

    Adds `positions` (B, int64: stream positions). A global batch is `global_batch_size / (micro_batch_size *
    world_size)` micro batches. A sample that cannot be read or decoded raises `ValueError` naming shard and key.

    Raises `ValueError` when micro batch times processes does not divide the global batch, and when start or end of
    the run are not at whole global batches.
    """
    if global_batch_size % (micro_batch_size * world_size):
        raise ValueError(
            f"global_batch_size {global_batch_size} is not a multiple of micro_batch_size {micro_batch_size} x "
            f"{world_size} processes = {micro_batch_size * world_size}; change one of them"
        )
    for name, value in (("start_samples", start_samples), ("num_samples", num_samples)):
        if value % global_batch_size:
            raise ValueError(f"{name} {value} is not a multiple of global_batch_size {global_batch_size}")
    order = SampleOrder(subset, seed)
    view = partial(
        training_view,
        image_size=image_size,
        crop_scale=crop_scale,
        crop_ratio=crop_ratio,
        horizontal_flip=horizontal_flip,
    )

    def requests() -> Iterator[_Request]:
        for positions in micro_batch_positions(
            start_samples, num_samples, micro_batch_size=micro_batch_size, rank=rank, world_size=world_size
        ):
            extra = {"positions": torch.from_numpy(positions)}
            yield order.samples(positions), sample_seeds(seed, positions), extra

    return _load(_Batches(split, view), requests(), num_workers)


def evaluation_batches(
    split: ShardSplit,
    indices: npt.NDArray[np.int64],
    *,
    image_size: int,
    batch_size: int,
    rank: int,
    world_size: int,
    num_workers: int,
) -> Iterator[Batch]:
    """One rank's share of the samples `indices` of a split, in order, centre-cropped; each image once over all ranks.

    Adds `indices` (B, int64: sample numbers) and `weights` (B, float32). Every rank yields the same number of batches
    of the same sizes, since forward passes hold collectives under ZeRO-3; where images run out, the last one is
    repeated with weight 0. Raises `ValueError` when `indices` is empty.
    """
    if len(indices) == 0:
        raise ValueError(f"there is no image to evaluate on in split {split.name!r}")
    numbers = np.arange(rank, math.ceil(len(indices) / world_size) * world_size, world_size)
    weights = (numbers < len(indices)).astype(np.float32)
    samples = np.asarray(indices, dtype=np.int64)[np.minimum(numbers, len(indices) - 1)]

    def requests() -> Iterator[_Request]:
        for start in range(0, len(samples), batch_size):
            chosen = samples[start : start + batch_size]
            extra = {
                "indices": torch.from_numpy(chosen),
                "weights": torch.from_numpy(weights[start : start + batch_size]),
            }
            yield chosen, evaluation_seeds(chosen), extra

    return _load(_Batches(split, partial(_evaluation_view, image_size=image_size)), requests(), num_workers)


def _evaluation_view(image: Image.Image, sample_seed: int, *, image_size: int) -> npt.NDArray[np.uint8]:
    return evaluation_view(image, image_size)


class _Batches(Dataset[Any]):
    """Makes the batch that a request describes, in a worker or in the main process."""

    def __init__(self, split: ShardSplit, view: Callable[[Image.Image, int], npt.NDArray[np.uint8]]) -> None:
        self._split = split
        self._view = view

    def __getitem__(self, request: _Request) -> Batch | ValueError:
        samples, seeds, extra = request
        try:
            views = [
                self._view(self._split.image(sample), seed)
                for sample, seed in zip(samples.tolist(), seeds.tolist(), strict=True)
            ]
        except ValueError as error:
            return error  # raised by the main process: torch would wrap it in the worker's traceback
        batch = {"images": torch.from_numpy(np.stack(views)), "sample_seeds": torch.from_numpy(seeds), **extra}
        labels = self._split.labels
        if labels is not None:
            batch["labels"] = torch.from_numpy(labels[samples])
        return batch


def _load(batches: _Batches, requests: Iterable[_Request], num_workers: int) -> Iterator[Batch]:
    loader: DataLoader[Any] = DataLoader(
        batches,
        batch_size=None,  # a request is a whole batch already
        sampler=requests,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else the loader would draw from, and so move, the run's global generator
    )
    for batch in loader:
        if isinstance(batch, ValueError):
            raise batch
        yield batch
