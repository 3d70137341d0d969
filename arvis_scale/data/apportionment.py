"""Dividing a number of images among classes or shards: whole numbers that add up, and only grow with the total."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def apportion(num_images: int, shares: npt.NDArray[np.float64], limits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how many of `num_images` each party gets, in proportion to `shares`, none more than its limit.

    Image after image goes to the party of the highest `share / (images so far + 1/2)` that is not at its limit, among
    equals to the first; so the counts add up to `num_images` exactly, and no count falls when `num_images` grows.
    Takes O(parties), however many images there are.

    Source: the divisor method of Webster and Sainte-Lague; Balinski and Young, "Fair Representation" (1982).
    """
    assert 0 <= num_images <= limits.sum() and (shares > 0).all()
    counts = np.zeros_like(limits)
    # Images whose priority is above 1 / scale are handed out together; bisection finds the largest scale that is not
    # too much, to the last bit of a float.
    low, high = 0.25 / float(shares.max()), 2.0 * float(((limits + 1) / shares).max())
    while low < (middle := (low + high) / 2) < high:
        served = np.minimum(shares * middle + 0.5, limits).astype(np.int64)
        if served.sum() <= num_images:
            low, counts = middle, served
        else:
            high = middle
    while (remaining := num_images - int(counts.sum())) > 0:  # equals, which no scale tells apart
        priorities = np.where(counts < limits, shares / (counts + 0.5), -np.inf)
        counts[np.flatnonzero(priorities == priorities.max())[:remaining]] += 1
    return counts
