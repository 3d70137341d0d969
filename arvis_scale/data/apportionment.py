"""Dividing a number of images among classes or shards: whole numbers that add up, and only grow with the total."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Far above the rounding errors of a float, far below the difference of one image in 10^11.
_MARGIN = 1e-12


def apportion(num_images: int, shares: npt.NDArray[np.float64], limits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how many of `num_images` each party gets, in proportion to `shares`, none more than its limit.

    Image after image goes to the party of the highest priority `share / (images so far + 1/2)` that is not at its
    limit, among equals to the first; so the counts add up to `num_images` exactly, and no count falls when
    `num_images` grows. Takes a few passes over the parties, however many images there are.

    Source: the divisor method of Webster and Sainte-Lague; Balinski and Young, "Fair Representation" (1982).
    """
    assert 0 <= num_images <= limits.sum() and (shares > 0).all()
    if num_images == 0:
        return np.zeros_like(limits)

    def counts(scale: float) -> npt.NDArray[np.int64]:
        """Counts once all images of a priority above `1 / scale` have been given."""
        return np.minimum(shares * scale + 0.5, limits).astype(np.int64)

    # Without limits a scale gives `scale * sum(shares)` images, to half an image per party; with them, fewer.
    spread = len(shares) / 2 + 1
    low = max(0.0, (num_images - spread) / float(shares.sum()))
    high = (num_images + spread) / float(shares.sum())
    while counts(high).sum() < num_images:
        high *= 2
    # Priorities at the very ends of the range are left to the last step, which alone decides between near equals.
    while ((above := counts(high * (1 + _MARGIN))) - (given := counts(low * (1 - _MARGIN)))).max(initial=0) > 1:
        middle = (low + high) / 2
        low, high = (middle, high) if counts(middle).sum() <= num_images else (low, middle)
    next_ones = np.flatnonzero(above > given)
    priorities = shares[next_ones] / (given[next_ones] + 0.5)
    in_order = next_ones[np.argsort(-priorities, kind="stable")]
    given[in_order[: num_images - int(given.sum())]] += 1
    return given
