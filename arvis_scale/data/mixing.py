"""Several data sets as one stream, each with an exact share of it.

With whole-numbered weights w, every block of `sum(w)` stream positions takes exactly w of its samples from each data
set, at places that a seeded permutation of the block chooses; each data set keeps its own order and its own epochs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from arvis_scale.data.keyed_random import Purpose, keyed_permutation
from arvis_scale.data.order import Order
from arvis_scale.data.shards import ShardedDataset, Split, Value


@dataclass(frozen=True)
class MixedDataset:
    """What names a mix: the data sets, the weights that they have in it, and how many images it takes of each."""

    parts: Sequence[ShardedDataset]
    weights: Sequence[int]
    unique_images: Sequence[int]

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts)

    @property
    def folder(self) -> str:
        return ", ".join(str(part.folder) for part in self.parts)

    @property
    def content_hash(self) -> str:
        """SHA-256 over the parts' content hashes, weights and numbers of images."""
        hashes = [part.content_hash for part in self.parts]
        content = list(zip(hashes, self.weights, self.unique_images, strict=True))
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class MixedSplit:
    """The samples of several splits, numbered one split after the other."""

    def __init__(self, parts: Sequence[Split]) -> None:
        self.name = "+".join(part.name for part in parts)
        self._parts = parts
        self.first_samples = np.cumsum([0, *(len(part) for part in parts)])  # one more than parts

    def __len__(self) -> int:
        return int(self.first_samples[-1])

    def key(self, sample: int) -> str:
        """Return the WebDataset key of a sample, behind the number of its data set: `1:photo_0042`."""
        part, own = self._locate(sample)
        return f"{part}:{self._parts[part].key(own)}"

    def labels_of(self, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Return None: the class numbers of different data sets mean different things."""
        return None

    def prefetch(self, samples: npt.NDArray[np.int64]) -> None:
        """Ask a server for all of these samples at once; does nothing for local shards."""
        parts = np.searchsorted(self.first_samples, samples, side="right") - 1
        for part in np.unique(parts).tolist():
            self._parts[part].prefetch(samples[parts == part] - self.first_samples[part])

    def decode(self, sample: int, decoder: Callable[[bytes], Value]) -> Value:
        """Return what `decoder` makes of the image file; raises `BadSample`."""
        part, own = self._locate(sample)
        return self._parts[part].decode(own, decoder)

    def image(self, sample: int) -> Image.Image:
        """Return the decoded 8-bit RGB image; raises `BadSample`."""
        part, own = self._locate(sample)
        return self._parts[part].image(own)

    def _locate(self, sample: int) -> tuple[int, int]:
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)} in split {self.name!r}")
        part = int(np.searchsorted(self.first_samples, sample, side="right")) - 1
        return part, sample - int(self.first_samples[part])


class MixedOrder:
    """The order of a `MixedSplit`, from those of its parts; remembers one block."""

    def __init__(
        self, orders: Sequence[Order], weights: Sequence[int], first_samples: npt.NDArray[np.int64], seed: int
    ) -> None:
        """`first_samples`: the number in the mixed split of each part's first sample."""
        self.seed = seed
        self._orders = orders
        self._weights = np.array(weights, dtype=np.int64)
        self._first_samples = first_samples
        self._sources = np.repeat(np.arange(len(weights)), weights)  # of the places of a block before it is shuffled
        self._block = -1
        self._block_parts = self._block_ranks = self._sources

    def samples(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the sample numbers at stream positions: N -> N."""
        parts, own_positions = self._locate(positions)
        samples = np.empty_like(positions)
        for part in np.unique(parts).tolist():
            here = np.flatnonzero(parts == part)
            samples[here] = self._first_samples[part] + self._orders[part].samples(own_positions[here])
        return samples

    def epochs(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return which epoch of the data set it is taken from each position lies in: N -> N."""
        parts, own_positions = self._locate(positions)
        epochs = np.empty_like(positions)
        for part in np.unique(parts).tolist():
            here = np.flatnonzero(parts == part)
            epochs[here] = self._orders[part].epochs(own_positions[here])
        return epochs

    def replacement(self, position: int, attempt: int) -> int:
        """Return a sample of the data set that `position` takes its sample from."""
        parts, own_positions = self._locate(np.array([position]))
        part, own_position = int(parts[0]), int(own_positions[0])
        return int(self._first_samples[part]) + self._orders[part].replacement(own_position, attempt)

    def _locate(self, positions: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return which part each position takes its sample from, and the position in the stream of that part."""
        parts, own_positions = np.empty_like(positions), np.empty_like(positions)
        blocks, places = np.divmod(positions, len(self._sources))
        for block in np.unique(blocks).tolist():
            here = np.flatnonzero(blocks == block)
            self._shuffle(block)
            parts[here] = self._block_parts[places[here]]
            own_positions[here] = block * self._weights[parts[here]] + self._block_ranks[places[here]]
        return parts, own_positions

    def _shuffle(self, block: int) -> None:
        if block != self._block:
            order = keyed_permutation(len(self._sources), Purpose.MIX, self.seed, block)
            self._block_parts = self._sources[order]
            # How many places before it in the block have the same source.
            self._block_ranks = np.empty_like(order)
            by_part = np.argsort(self._block_parts, kind="stable")
            starts = np.repeat(np.cumsum(self._weights) - self._weights, self._weights)
            self._block_ranks[by_part] = np.arange(len(order)) - starts
            self._block = block
