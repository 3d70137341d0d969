"""Which images a run may use: nested subsets for data sweeps, and a held-out part where there is no test split.

Every subset is the first n of one seeded order of all images that it may be made of, so that a smaller one lies in
every larger one of the same kind and seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from arvis_scale.config.hints import suggestion
from arvis_scale.data.keyed_random import Purpose, keyed_permutation
from arvis_scale.data.sample_sets import LISTED_LIMIT, ListedSamples, SampleSet, ShardwiseSamples

_KEYS_PER_SEARCH = 2**20


def nested_subset(num_total: int, unique_images: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Return numbers of the first `unique_images` of one seeded permutation of `num_total` images; None takes all.

    Raises `ValueError` when more images are asked for than there are, or fewer than one.
    """
    unique_images = num_total if unique_images is None else unique_images
    _check_number(unique_images, num_total)
    return keyed_permutation(num_total, Purpose.SUBSET, seed)[:unique_images]


def held_out_fraction(
    num_total: int, fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split `num_total` images into (training, held out) numbers, the held-out part `fraction` of them, rounded.

    Take `training[nested_subset(len(training), ...)]` for a subset that never meets the held-out part.
    Raises `ValueError` when either part would be empty.
    """
    num_held_out = _num_held_out(num_total, fraction)
    order = keyed_permutation(num_total, Purpose.HELD_OUT, seed)
    return order[num_held_out:], order[:num_held_out]


def all_samples(shard_sizes: npt.NDArray[np.int64], seed: int) -> SampleSet:
    """Return the samples of a whole split; `seed` orders those of a split too large for a list."""
    num_total = int(shard_sizes.sum())
    if num_total > LISTED_LIMIT:
        return ShardwiseSamples.whole(shard_sizes, seed)
    return ListedSamples(np.arange(num_total), shard_sizes)


def hold_out(shard_sizes: npt.NDArray[np.int64], fraction: float, seed: int) -> tuple[SampleSet, SampleSet]:
    """Return (training, held out) of a split: by `held_out_fraction`, or from each shard of one too large for a list.

    Raises `ValueError` when either part would be empty.
    """
    num_total = int(shard_sizes.sum())
    if num_total > LISTED_LIMIT:
        whole = ShardwiseSamples.whole(shard_sizes, seed)
        held_out = whole.first(_num_held_out(num_total, fraction))
        return whole.without(held_out), held_out
    training, rest = held_out_fraction(num_total, fraction, seed)
    return ListedSamples(training, shard_sizes), ListedSamples(rest, shard_sizes)


def first_of(pool: SampleSet, num_images: int | None, seed: int) -> SampleSet:
    """Return the first `num_images` of a seeded order of `pool`, all for None; `ValueError` where there are fewer."""
    if isinstance(pool, ListedSamples):
        return pool.at(nested_subset(len(pool), num_images, seed))
    assert isinstance(pool, ShardwiseSamples), "it comes in a seeded order"
    _check_number(len(pool) if num_images is None else num_images, len(pool))
    return pool if num_images is None else pool.first(num_images)


def places_of_classes(
    labels: npt.NDArray[np.int64], chosen: Sequence[str], classes: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Return the places of `labels` whose class is among the names `chosen`; `ValueError` names one that is unknown."""
    for name in chosen:
        if name not in classes:
            raise ValueError(f"data.subset.classes: there is no class {name!r}{suggestion(name, classes)}")
    return np.flatnonzero(np.isin(labels, [classes.index(name) for name in chosen]))


def samples_of_manifest(path: Path, keys: npt.NDArray[np.bytes_]) -> npt.NDArray[np.int64]:
    """Return the numbers of the samples whose keys, one per line, a text file lists; `keys` are those of the split.

    Raises `ValueError` when the file cannot be read, lists a key twice or one that there is not.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"data.subset.manifest={path} cannot be read ({error}); give a text file of keys") from error
    wanted = np.sort(np.array([line.strip().encode() for line in lines if line.strip()], dtype=np.bytes_))
    if len(wanted) == 0:
        raise ValueError(f"data.subset.manifest={path} lists no key; list keys of data.train_split, one per line")
    twice = wanted[1:][wanted[1:] == wanted[:-1]]
    if len(twice):
        raise ValueError(f"data.subset.manifest={path} lists {twice[0].decode()} twice; list every key once")
    found: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(keys), _KEYS_PER_SEARCH):
        part = keys[start : start + _KEYS_PER_SEARCH]
        places = np.minimum(np.searchsorted(wanted, part), len(wanted) - 1)
        found.append(start + np.flatnonzero(wanted[places] == part))
    samples = np.concatenate(found)
    unknown = np.setdiff1d(wanted, keys[samples])
    if len(unknown):
        raise ValueError(
            f"data.subset.manifest={path} lists {len(unknown):,} keys that the split has not, the first "
            f"{unknown[0].decode()}; list keys of data.train_split, one per line"
        )
    return samples


def _num_held_out(num_total: int, fraction: float) -> int:
    num_held_out = round(num_total * fraction)
    if not 1 <= num_held_out < num_total:
        raise ValueError(f"a held-out fraction of {fraction} of {num_total:,} images leaves one part empty")
    return num_held_out


def _check_number(unique_images: int, num_total: int) -> None:
    if not 1 <= unique_images <= num_total:
        raise ValueError(f"unique_images is {unique_images:,}, but there are {num_total:,} images; ask for 1 to that")
