"""Batches for training and evaluation: torch's DataLoader over positions of the stream, so that resuming is seeking.

A batch is a dict of tensors: `images` (B x 3 x H x W, uint8), `sample_seeds` (B, int64), `labels` (B, int64, where the
data set has classes; -1 for an image without one) and what `training_batches` and `evaluation_batches` add. Under
`on_bad_sample="skip"` it carries `bad_samples` (int64): how many samples could not be used, by `faults.REASONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from arvis_scale.data.faults import REASONS, BadSample
from arvis_scale.data.order import Order, evaluation_seeds, micro_batch_positions, sample_seeds
from arvis_scale.data.shards import Split
from arvis_scale.data.teacher_tokens import TeacherTokens
from arvis_scale.data.views import evaluation_view, training_view

# So many samples in a row that cannot be used are no accident.
MAX_REPLACEMENTS = 100

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Request:
    """All a worker needs to make a batch: sample numbers and seeds, where they are from, what else it carries."""

    samples: npt.NDArray[np.int64]
    seeds: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    epochs: npt.NDArray[np.int64]
    extra: dict[str, torch.Tensor]


def training_batches(
    split: Split,
    order: Order,
    *,
    image_size: int,
    crop_scale: tuple[float, float],
    crop_ratio: tuple[float, float],
    horizontal_flip: float,
    global_batch_size: int,
    micro_batch_size: int,
    rank: int,
    world_size: int,
    num_workers: int,
    num_samples: int,
    start_samples: int = 0,
    decoding: str = "exact",
    on_bad_sample: str = "raise",
    tokens: TeacherTokens | None = None,
    rand_augment: str | None = None,
) -> Iterator[Batch]:
    """One rank's micro batches of stream positions `start_samples` up to `num_samples`, the end of the whole run.

    Adds `positions` (B, int64: stream positions). A global batch is `global_batch_size / (micro_batch_size *
    world_size)` micro batches. A sample that cannot be read or decoded raises `BadSample`, or, under
    `on_bad_sample="skip"`, gives its place to another one, the same on any process and in any worker.
    With stored `tokens` the crops and flips are those of the stored views, and the batch carries what they read.
    `rand_augment`: policy in timm's notation that each view goes through, for fine-tuning.

    Raises `ValueError` when micro batch times processes does not divide the global batch, and when start or end of
    the run are not at whole global batches.
    """
    _check_whole_batches(global_batch_size, micro_batch_size, world_size)
    for name, value in (("start_samples", start_samples), ("num_samples", num_samples)):
        if value % global_batch_size:
            raise ValueError(f"{name} {value} is not a multiple of global_batch_size {global_batch_size}")
    view: Callable[..., npt.NDArray[np.uint8]] = partial(
        training_view,
        image_size=image_size,
        crop_scale=crop_scale,
        crop_ratio=crop_ratio,
        horizontal_flip=horizontal_flip,
        decoding=decoding,
    )
    if rand_augment is not None:
        # Imported here: timm, which pretraining does without.
        from arvis_scale.data.finetune_augment import rand_augmented

        view = partial(rand_augmented, view=view, policy=rand_augment)

    def requests() -> Iterator[_Request]:
        for positions in micro_batch_positions(
            start_samples, num_samples, micro_batch_size=micro_batch_size, rank=rank, world_size=world_size
        ):
            extra = {"positions": torch.from_numpy(positions)}
            samples, seeds = order.samples(positions), sample_seeds(order.seed, positions)
            yield _Request(samples, seeds, positions, order.epochs(positions), extra)

    skips, replacement = on_bad_sample == "skip", order.replacement
    batches = _Batches(split, view, image_size, skips=skips, replacement=replacement, tokens=tokens)
    return _load(batches, requests(), num_workers)


def chosen_views(
    split: Split,
    chosen: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
    *,
    image_size: int,
    crop_scale: tuple[float, float],
    crop_ratio: tuple[float, float],
    horizontal_flip: float,
    num_workers: int,
    decoding: str = "exact",
    on_bad_sample: str = "raise",
) -> Iterator[Batch]:
    """Training views of chosen samples: a batch for each pair of sample numbers and view seeds, B each, in order.

    Adds `indices` (B, int64: sample numbers) and `weights` (B, float32): 1, and 0 for what `evaluation_batches` makes
    of a sample that cannot be read or decoded.
    """
    view = partial(
        training_view,
        image_size=image_size,
        crop_scale=crop_scale,
        crop_ratio=crop_ratio,
        horizontal_flip=horizontal_flip,
        decoding=decoding,
    )

    def requests() -> Iterator[_Request]:
        for samples, seeds in chosen:
            nowhere = np.zeros_like(samples)
            extra = {"indices": torch.from_numpy(samples), "weights": torch.ones(len(samples))}
            yield _Request(samples, seeds, nowhere, nowhere, extra)

    return _load(_Batches(split, view, image_size, skips=on_bad_sample == "skip"), requests(), num_workers)


def evaluation_batches(
    split: Split,
    indices: npt.NDArray[np.int64],
    *,
    image_size: int,
    batch_size: int,
    rank: int,
    world_size: int,
    num_workers: int,
    decoding: str = "exact",
    on_bad_sample: str = "raise",
    tokens: TeacherTokens | None = None,
) -> Iterator[Batch]:
    """One rank's share of the samples `indices` of a split, in order, centre-cropped; each image once over all ranks.

    Adds `indices` (B, int64: sample numbers) and `weights` (B, float32). Every rank yields the same number of batches
    of the same sizes, since forward passes hold collectives under ZeRO-3; where images run out, the last one is
    repeated with weight 0. A sample that cannot be read or decoded raises `BadSample`, or, under
    `on_bad_sample="skip"`, is a black image of weight 0. Raises `ValueError` when `indices` is empty.
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
            places = numbers[start : start + batch_size]
            yield _Request(chosen, evaluation_seeds(chosen), places, np.zeros_like(places), extra)

    view = partial(evaluation_view, image_size=image_size, decoding=decoding)
    batches = _Batches(split, view, image_size, skips=on_bad_sample == "skip", tokens=tokens)
    return _load(batches, requests(), num_workers)


def _check_whole_batches(global_batch_size: int, micro_batch_size: int, world_size: int) -> None:
    if global_batch_size % (micro_batch_size * world_size):
        raise ValueError(
            f"global_batch_size {global_batch_size} is not a multiple of micro_batch_size {micro_batch_size} x "
            f"{world_size} processes = {micro_batch_size * world_size}; change one of them"
        )


class _Batches(Dataset[Any]):
    """Makes the batch that a request describes, in a worker or in the main process."""

    def __init__(
        self,
        split: Split,
        view: Callable[..., npt.NDArray[np.uint8]],
        image_size: int,
        *,
        skips: bool,
        replacement: Callable[[int, int], int] | None = None,
        tokens: TeacherTokens | None = None,
    ) -> None:
        """`view(data, sample_seed=...)`: an image file's view, 3 x H x W. `replacement`: of position and attempt."""
        self._split = split
        self._view = view
        self._image_size = image_size
        self._skips = skips
        self._replacement = replacement
        self._tokens = tokens

    def __getitem__(self, request: _Request) -> Batch | ValueError:
        try:
            return self._batch(request)
        except ValueError as error:
            return error  # raised by the main process: torch would wrap it in the worker's traceback

    def _batch(self, request: _Request) -> Batch:
        side = self._image_size
        images = np.zeros((len(request.samples), 3, side, side), dtype=np.uint8)
        samples = request.samples.copy()
        self._split.prefetch(samples)
        counts = np.zeros(len(REASONS), dtype=np.int64)
        unused = []
        for place in range(len(samples)):
            sample = self._fill(images[place], request, place, counts)
            if sample is None:
                unused.append(place)
            else:
                samples[place] = sample
        batch = {"images": torch.from_numpy(images), "sample_seeds": torch.from_numpy(request.seeds), **request.extra}
        if unused:
            batch["weights"] = batch["weights"].index_fill(0, torch.tensor(unused), 0.0)
        if self._skips:
            batch["bad_samples"] = torch.from_numpy(counts)
        labels = self._split.labels_of(samples)
        if labels is not None:
            batch["labels"] = torch.from_numpy(labels)
        if self._tokens is not None:
            batch.update(self._tokens.read(samples, request.epochs))
        return batch

    def _fill(
        self, image: npt.NDArray[np.uint8], request: _Request, place: int, counts: npt.NDArray[np.int64]
    ) -> int | None:
        """Fill `image`; return the sample that it shows, None when that of the request is bad and not replaced."""
        sample, position = int(request.samples[place]), int(request.positions[place])
        seed, epoch = int(request.seeds[place]), int(request.epochs[place])
        for attempt in range(1, MAX_REPLACEMENTS + 1):
            try:
                view_seed = seed if self._tokens is None else self._tokens.seed(sample, epoch)
                image[:] = self._split.decode(sample, partial(self._view, sample_seed=view_seed))
                return sample
            except BadSample as error:
                if not self._skips:
                    raise
                counts[REASONS.index(error.reason)] += 1
                if self._replacement is None:
                    return None
                if attempt == MAX_REPLACEMENTS:
                    raise ValueError(f"{attempt} samples in a row cannot be used, the last one: {error}") from error
                sample = self._replacement(position, attempt)
        raise AssertionError("the last attempt returns or raises")


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
