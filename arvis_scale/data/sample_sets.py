"""Sets of samples of a split, in an order of their own, and what of them lies in which shard."""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
import numpy.typing as npt

from arvis_scale.data.apportionment import apportion
from arvis_scale.data.keyed_random import Purpose, keyed_permutation

# Up to this many samples of a split (34 MB of them) a set is a list; beyond, it is computed shard by shard.
LISTED_LIMIT = 2**22


class SampleSet(Protocol):
    """Different samples of one split; `counts` says how many of them lie in each of its shards."""

    counts: npt.NDArray[np.int64]

    def __len__(self) -> int: ...

    def of_shards(self, shards: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the samples that lie in some different shards."""

    def listed(self) -> npt.NDArray[np.int64]:
        """Return all samples of the set."""

    def digest(self) -> bytes:
        """Return a SHA-256 of what is in the set."""


class ListedSamples:
    """Samples of a split in the order of a list."""

    def __init__(self, samples: npt.NDArray[np.int64], shard_sizes: npt.NDArray[np.int64]) -> None:
        ends = np.cumsum(shard_sizes)
        shards = np.searchsorted(ends, samples, side="right")
        self._samples = samples
        self._shard_sizes = shard_sizes
        self._by_shard = np.argsort(shards, kind="stable")  # places in the list
        self.counts = np.bincount(shards, minlength=len(shard_sizes)).astype(np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])

    def __len__(self) -> int:
        return len(self._samples)

    def of_shards(self, shards: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the samples that lie in some different shards, in the order of the list."""
        places = np.concatenate([self._by_shard[self._starts[s] : self._starts[s + 1]] for s in shards.tolist()])
        return self._samples[np.sort(places)]

    def listed(self) -> npt.NDArray[np.int64]:
        """Return the list."""
        return self._samples

    def at(self, places: npt.NDArray[np.int64]) -> ListedSamples:
        """Return the samples at some different places of the list."""
        return ListedSamples(self._samples[places], self._shard_sizes)

    def digest(self) -> bytes:
        """Return SHA-256 over the sorted numbers of the samples: equal for equal sets."""
        return hashlib.sha256(np.sort(self._samples).astype("<i8").tobytes()).digest()


class ShardwiseSamples:
    """Of every shard a stretch of its own seeded permutation: needs two numbers per shard, however many samples."""

    def __init__(
        self,
        shard_sizes: npt.NDArray[np.int64],
        seed: int,
        skipped: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int64],
    ) -> None:
        """Of shard s the samples at places `skipped[s]` to `skipped[s] + counts[s]` of its permutation."""
        self._sizes = shard_sizes
        self._first_samples = np.cumsum(shard_sizes) - shard_sizes
        self._seed = seed
        self._skipped = skipped
        self.counts = counts
        self._num_samples = int(counts.sum())

    @classmethod
    def whole(cls, shard_sizes: npt.NDArray[np.int64], seed: int) -> ShardwiseSamples:
        """Return all samples of a split."""
        return cls(shard_sizes, seed, np.zeros_like(shard_sizes), shard_sizes)

    def __len__(self) -> int:
        return self._num_samples

    def of_shards(self, shards: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the samples that lie in some different shards, shard after shard."""
        return np.concatenate([self._of_shard(shard) for shard in shards.tolist()])

    def first(self, num_samples: int) -> ShardwiseSamples:
        """Return a set that takes from every shard in proportion to what there is, inside every larger such set."""
        present = self.counts > 0
        counts = np.zeros_like(self.counts)
        counts[present] = apportion(num_samples, self.counts[present].astype(np.float64), self.counts[present])
        return ShardwiseSamples(self._sizes, self._seed, self._skipped, counts)

    def without(self, taken: ShardwiseSamples) -> ShardwiseSamples:
        """Return the rest of this set beside `taken`, which `first` made from it."""
        return ShardwiseSamples(self._sizes, self._seed, self._skipped + taken.counts, self.counts - taken.counts)

    def listed(self) -> npt.NDArray[np.int64]:
        """Return all samples of the set: 8 bytes each, which the set itself does not need."""
        return self.of_shards(np.arange(len(self._sizes)))

    def digest(self) -> bytes:
        """Return SHA-256 over seed and stretches: equal for sets that were made in the same way."""
        digest = hashlib.sha256(str(self._seed).encode())
        for column in (self._sizes, self._skipped, self.counts):
            digest.update(column.astype("<i8").tobytes())
        return digest.digest()

    def _of_shard(self, shard: int) -> npt.NDArray[np.int64]:
        first, size = int(self._first_samples[shard]), int(self._sizes[shard])
        skipped, count = int(self._skipped[shard]), int(self.counts[shard])
        if count == size:
            return np.arange(first, first + size, dtype=np.int64)
        return first + keyed_permutation(size, Purpose.SUBSET, self._seed, shard)[skipped : skipped + count]
