"""The endless stream of training samples, as a function of seed and subset alone.

Position t of the stream is sample `permutation(seed, epoch)[offset]` of the n in the subset, where
`epoch, offset = divmod(t, n)`.
Global batch i is positions `[i*G, (i+1)*G)`, read as `[accumulation][world_size][micro_batch_size]`; so what a batch
holds depends on no process layout, and going on from any position costs one permutation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from arvis_scale.data.keyed_random import Purpose, keyed_permutation, keyed_seeds

# Evaluation draws are keyed on the image alone, whatever the seed of the run, so that runs can be compared.
EVALUATION_SEED = 0x5EED


class SampleOrder:
    """The order of `subset` (sample numbers of a split) under `seed`; remembers the current epoch's permutation."""

    def __init__(self, subset: npt.NDArray[np.int64], seed: int) -> None:
        if len(subset) == 0:
            raise ValueError("the subset to train on is empty")
        self._subset = subset
        self._seed = seed
        self._epoch = -1
        self._permutation = subset[:0]

    def samples(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Sample numbers at stream positions: N -> N."""
        epochs, offsets = np.divmod(positions, len(self._subset))
        samples = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            samples[here] = self._subset[self._epoch_permutation(int(epoch))[offsets[here]]]
        return samples

    def _epoch_permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch != self._epoch:
            self._permutation = keyed_permutation(len(self._subset), Purpose.EPOCH, self._seed, epoch)
            self._epoch = epoch
        return self._permutation


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
