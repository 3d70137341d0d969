"""An encoder's tokens of labelled images: kept in memory where they fit, else computed at every use."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arvis_scale.data.loader import evaluation_batches
from arvis_scale.data.shards import ShardSplit
from arvis_scale.evaluation.features import FeatureFunction, labels_of
from arvis_scale.models.images import normalize

# Images that are encoded, and that a probe reads, at a time.
CHUNK = 256

_logger = logging.getLogger(__name__)


class Tokens(Protocol):
    """Tokens `n x D` and the label of every one of some images, numbered from 0."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class numbers."""

    def batches(self, places: npt.NDArray[np.int64], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield tokens `B x n x D` (float32) and labels `B` of the images `places`, in order, on the device."""


@dataclass(frozen=True)
class StoredTokens:
    """Tokens in memory."""

    tokens: Tensor  # N x n x D
    labels: npt.NDArray[np.int64]
    device: torch.device

    def batches(self, places: npt.NDArray[np.int64], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Tokens.batches`."""
        labels = torch.from_numpy(self.labels)
        for start in range(0, len(places), batch_size):
            chosen = torch.from_numpy(places[start : start + batch_size])
            yield self.tokens[chosen].to(self.device), labels[chosen].to(self.device)


class ComputedTokens:
    """Tokens that `function` gives of the samples `indices` of a labelled split, each time they are asked for."""

    def __init__(
        self,
        function: FeatureFunction,
        split: ShardSplit,
        indices: npt.NDArray[np.int64],
        *,
        image_size: int,
        device: torch.device,
        num_workers: int = 0,
    ) -> None:
        self.labels = labels_of(split, indices)
        self.device = device
        self._function = function
        self._split = split
        self._indices = indices
        self._image_size = image_size
        self._num_workers = num_workers

    def batches(self, places: npt.NDArray[np.int64], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Tokens.batches`."""
        labels = torch.from_numpy(self.labels[places])
        batches = evaluation_batches(
            self._split,
            self._indices[places],
            image_size=self._image_size,
            batch_size=batch_size,
            rank=0,
            world_size=1,
            num_workers=self._num_workers,
        )
        for batch, of_batch in zip(batches, labels.split(batch_size), strict=True):
            with torch.no_grad():
                tokens = self._function(normalize(batch["images"].to(self.device))).float()
            yield tokens, of_batch.to(self.device)


@dataclass(frozen=True)
class StandardizedTokens:
    """`tokens` with `mean` taken off and divided by `std`, each of `D` channels."""

    tokens: Tokens
    mean: Tensor
    std: Tensor

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The labels of `tokens`."""
        return self.tokens.labels

    def batches(self, places: npt.NDArray[np.int64], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Tokens.batches`."""
        for tokens, labels in self.tokens.batches(places, batch_size):
            yield (tokens - self.mean) / self.std, labels


def stored_if_small(tokens: ComputedTokens, max_bytes: float) -> Tokens:
    """Return `tokens` computed once and kept as float32, or `tokens` itself where they take over `max_bytes`."""
    everything = np.arange(len(tokens.labels))
    first, _ = next(tokens.batches(everything[:1], 1))
    num_bytes = 4 * first.numel() * len(everything)
    if num_bytes > max_bytes:
        gib = num_bytes / 2**30
        _logger.info("%.1f GiB of tokens are over probe_data.token_memory_gib: computed anew at every use", gib)
        return tokens
    stored = torch.empty(len(everything), *first.shape[1:])
    done = 0
    for chunk, _ in tokens.batches(everything, CHUNK):
        stored[done : done + len(chunk)] = chunk
        done += len(chunk)
    return StoredTokens(stored, tokens.labels, tokens.device)


def channel_statistics(tokens: Tokens, eps: float) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel, `D` each, over all tokens; `eps` is added to the variance."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for chunk, _ in tokens.batches(np.arange(len(tokens.labels)), CHUNK):
        values = chunk.double().flatten(0, 1)  # one row per token
        count += len(values)
        total = total.to(values.device) + values.sum(dim=0)
        squares = squares.to(values.device) + values.square().sum(dim=0)
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0)
    return mean.float(), (variance + eps).sqrt().float()
