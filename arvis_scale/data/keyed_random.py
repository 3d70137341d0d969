"""Random numbers that are a function of a key alone: permutations and 63-bit seeds.

Nothing here keeps a state, so that any position of a stream can be reached directly.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt


class Purpose(IntEnum):
    """First word of every key, so that two uses of one user seed never share their random numbers.

    The keys of one purpose are of one length: numpy takes `(4, 7)` and `(4, 7, 0)` for the same key.
    """

    SHARD_ORDER = 1
    SUBSET = 2
    HELD_OUT = 3
    EPOCH = 4
    PALETTE = 5
    EPOCH_SHARDS = 6
    MIX = 7
    CLASS_RANKS = 8
    CLASS_IMAGES = 9
    REPLACEMENT = 10


def keyed_permutation(num_items: int, purpose: Purpose, *key: int) -> npt.NDArray[np.int64]:
    """A permutation of `0..num_items-1` that depends on `(purpose, *key)` alone; every word of the key is >= 0."""
    sequence = np.random.SeedSequence([int(purpose), *key])
    return np.random.Generator(np.random.Philox(sequence)).permutation(num_items)


def keyed_seed(purpose: Purpose, *key: int) -> int:
    """One 63-bit seed that depends on `(purpose, *key)` alone."""
    return int(np.random.SeedSequence([int(purpose), *key]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def keyed_seeds(seed: int, counters: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """One 63-bit seed (int64 >= 0) per counter: two rounds of splitmix64 over `(seed, counter)`.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014), section 5, in the
    variant 13 of the mixing constants that java.util.SplittableRandom uses.
    """
    stream = _splitmix64(np.array([seed], dtype=np.uint64))
    mixed = _splitmix64(stream ^ counters.astype(np.uint64))
    return (mixed >> np.uint64(1)).astype(np.int64)


def _splitmix64(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    # Array arithmetic on uint64 wraps around silently, which is what the algorithm asks for.
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
