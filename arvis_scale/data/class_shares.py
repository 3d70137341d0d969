"""Subsets whose classes have chosen shares: equal ones, or those of a long tail."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from arvis_scale.data.apportionment import apportion
from arvis_scale.data.keyed_random import Purpose, keyed_permutation


def balanced_places(
    labels: npt.NDArray[np.int64], num_images: int | None, seed: int, classes: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Return places of `labels` with as many images of each class, or one more; None takes as many as that allows.

    Which classes have the one more, and which images of a class are taken, depends on `seed`.
    Raises `ValueError` when the smallest class has too few images.
    """
    present, sizes = _ranked_classes(labels, seed)
    shares = np.ones(len(sizes))
    largest = _largest_in_shape(shares, sizes)
    if num_images is not None and num_images > largest:
        smallest = classes[present[int(np.argmin(sizes))]]
        raise ValueError(
            f"unique_images is {num_images:,}, but class {smallest!r} has only {sizes.min():,} images, so that a "
            f"balanced subset of {len(sizes)} classes has at most {largest:,}; ask for fewer, or leave the class out"
        )
    return _places(labels, present, apportion(num_images or largest, shares, sizes), seed)


def long_tail_places(
    labels: npt.NDArray[np.int64], num_images: int | None, exponent: float, seed: int
) -> npt.NDArray[np.int64]:
    """Return places of `labels` where the class of rank r = 1, 2, ... has a share proportional to `r ** -exponent`.

    Ranks are seeded. The shares add up to `num_images` exactly; a class that has fewer images gives all it has, and the
    others more. None takes as many images as leave no class short.
    Source: Zipf's law, as in Liu et al., "Large-scale long-tailed recognition in an open world" (CVPR 2019).
    """
    present, sizes = _ranked_classes(labels, seed)
    shares = np.arange(1, len(sizes) + 1, dtype=np.float64) ** -exponent
    if num_images is None:
        num_images = _largest_in_shape(shares, sizes)
    if not 1 <= num_images <= len(labels):
        raise ValueError(f"unique_images is {num_images:,}, but there are {len(labels):,} images; ask for 1 to that")
    return _places(labels, present, apportion(num_images, shares, sizes), seed)


def _ranked_classes(labels: npt.NDArray[np.int64], seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the class numbers that there are, in the seeded order of their ranks, and how many images each has."""
    present, sizes = np.unique(labels, return_counts=True)
    order = keyed_permutation(len(present), Purpose.CLASS_RANKS, seed)
    return present[order], sizes[order].astype(np.int64)


def _largest_in_shape(shares: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64]) -> int:
    """Return for how many images no class is asked for more than it has."""
    low, high = 0, int(sizes.sum())
    while low < high:
        middle = (low + high + 1) // 2
        fits = (apportion(middle, shares, np.full_like(sizes, middle)) <= sizes).all()
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _places(
    labels: npt.NDArray[np.int64], present: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], seed: int
) -> npt.NDArray[np.int64]:
    """Return the places of the first `counts` images of each class, in the class's own seeded permutation."""
    by_class = np.argsort(labels, kind="stable")
    in_order = labels[by_class]
    chosen = []
    for number, count in zip(present.tolist(), counts.tolist(), strict=True):
        start, end = np.searchsorted(in_order, [number, number + 1])
        order = keyed_permutation(int(end - start), Purpose.CLASS_IMAGES, seed, number)
        chosen.append(by_class[start + order[:count]])
    return np.concatenate(chosen)
