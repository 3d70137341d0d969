"""The endless stream of training samples, as a function of seed and set of samples alone.

An epoch is a seeded shuffle of the shards, cut into windows of consecutive ones, and a seeded shuffle of all samples in
each window. Position t of the stream is sample `offset` of that, where `epoch, offset = divmod(t, epoch length)`.
Global batch i is positions `[i*G, (i+1)*G)`, read as `[accumulation][world_size][micro_batch_size]`; so what a batch
holds depends on no process layout. Going on from any position costs one permutation of the shards and one of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from arvis_scale.data.keyed_random import Purpose, keyed_permutation, keyed_seed, keyed_seeds
from arvis_scale.data.sample_sets import SampleSet

WINDOW_SHARDS = 64
# Evaluation draws are keyed on the image alone, whatever the seed of the run, so that runs can be compared.
EVALUATION_SEED = 0x5EED


class Order(Protocol):
    """A stream of samples that any position can be asked of."""

    seed: int

    def samples(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the sample numbers at stream positions: N -> N."""

    def epochs(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return which epoch of its data set, counted from 0, each position lies in: N -> N."""

    def replacement(self, position: int, attempt: int) -> int:
        """Return a sample to take where the one at `position`, and `attempt` - 1 others after it, cannot be used."""


class SampleOrder:
    """The order of a set of samples under `seed`; remembers the current epoch's shards and one window."""

    def __init__(
        self, chosen: SampleSet, seed: int, *, window_shards: int = WINDOW_SHARDS, epoch_multiple: int = 1
    ) -> None:
        """`epoch_multiple`: an epoch ends at the last whole multiple of it, and the samples after that are left out.

        Raises `ValueError` when an epoch would hold nothing.
        """
        self.seed = seed
        self._set = chosen
        self._shards = np.flatnonzero(chosen.counts)
        self.epoch_length = len(chosen) // epoch_multiple * epoch_multiple
        if len(chosen) == 0:
            raise ValueError("the subset to train on is empty")
        if self.epoch_length == 0:
            raise ValueError(
                f"data.epoch_end=drop leaves nothing of {len(chosen):,} images with global_batch_size="
                f"{epoch_multiple}; take data.epoch_end=wrap or a smaller batch"
            )
        num_windows = -(-len(self._shards) // window_shards)
        # Windows of nearly equal size: a last one of a single shard would hardly be shuffled.
        self._bounds = np.arange(num_windows + 1) * len(self._shards) // num_windows
        self._epoch = -1
        self._shuffled_shards = self._window_starts = self._window_samples = np.zeros(0, dtype=np.int64)
        self._window: tuple[int, int] | None = None  # the epoch and window of `_window_samples`

    @property
    def num_dropped(self) -> int:
        """Samples that every epoch leaves out at its end, others in every epoch."""
        return len(self._set) - self.epoch_length

    def samples(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the sample numbers at stream positions: N -> N."""
        samples = np.empty_like(positions)
        epochs, offsets = np.divmod(positions, self.epoch_length)
        for epoch in np.unique(epochs).tolist():
            here = np.flatnonzero(epochs == epoch)
            samples[here] = self._epoch_samples(epoch, offsets[here])
        return samples

    def epochs(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return which epoch, counted from 0, each position lies in: N -> N."""
        return positions // self.epoch_length

    def replacement(self, position: int, attempt: int) -> int:
        """Return a sample of the set, drawn from (seed, position, attempt)."""
        draw = keyed_seed(Purpose.REPLACEMENT, self.seed, position, attempt) % len(self._set)
        ends = np.cumsum(self._set.counts)
        shard = int(np.searchsorted(ends, draw, side="right"))
        return int(self._set.of_shards(np.array([shard]))[draw - int(ends[shard])])  # from the shard's end

    def _epoch_samples(self, epoch: int, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if epoch != self._epoch:
            shuffled = keyed_permutation(len(self._shards), Purpose.EPOCH_SHARDS, self.seed, epoch)
            self._shuffled_shards = self._shards[shuffled]
            ends = np.cumsum(self._set.counts[self._shuffled_shards])
            self._window_starts = np.concatenate([[0], ends])[self._bounds]
            self._epoch = epoch
        samples = np.empty_like(offsets)
        windows = np.searchsorted(self._window_starts, offsets, side="right") - 1
        for window in np.unique(windows).tolist():
            here = np.flatnonzero(windows == window)
            samples[here] = self._shuffled_window(window)[offsets[here] - self._window_starts[window]]
        return samples

    def _shuffled_window(self, window: int) -> npt.NDArray[np.int64]:
        if self._window != (self._epoch, window):
            shards = self._shuffled_shards[self._bounds[window] : self._bounds[window + 1]]
            samples = self._set.of_shards(shards)
            order = keyed_permutation(len(samples), Purpose.EPOCH, self.seed, self._epoch, window)
            self._window_samples = samples[order]
            self._window = (self._epoch, window)
        return self._window_samples


def micro_batch_positions(
    start: int, stop: int, *, micro_batch_size: int, rank: int, world_size: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Stream positions of one rank's micro batches between two global batch boundaries."""
    for first in range(start + rank * micro_batch_size, stop, world_size * micro_batch_size):
        yield np.arange(first, first + micro_batch_size, dtype=np.int64)


def sample_seeds(seed: int, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """One 63-bit seed per stream position, for all that is random about a sample: crop, stochastic depth, orders."""
    return keyed_seeds(seed, positions)


def evaluation_seeds(samples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """One 63-bit seed per sample number, the same in every run."""
    return keyed_seeds(EVALUATION_SEED, samples)
