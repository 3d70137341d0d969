"""Which images a run may use: nested subsets for data sweeps, and a held-out part where there is no test split."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from arvis_scale.data.keyed_random import Purpose, keyed_permutation


def nested_subset(num_total: int, unique_images: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Numbers of the first `unique_images` of one seeded permutation of `num_total` images; None takes all.

    Nested by construction: a smaller subset of the same seed lies in every larger one.
    Raises `ValueError` when more images are asked for than there are, or fewer than one.
    """
    if unique_images is None:
        unique_images = num_total
    if not 1 <= unique_images <= num_total:
        raise ValueError(f"unique_images is {unique_images:,}, but there are {num_total:,} images; ask for 1 to that")
    return keyed_permutation(num_total, Purpose.SUBSET, seed)[:unique_images]


def held_out_fraction(
    num_total: int, fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split `num_total` images into (training, held out) numbers, the held-out part `fraction` of them, rounded.

    Take `training[nested_subset(len(training), ...)]` for a subset that never meets the held-out part.
    Raises `ValueError` when either part would be empty.
    """
    num_held_out = round(num_total * fraction)
    if not 1 <= num_held_out < num_total:
        raise ValueError(f"a held-out fraction of {fraction} of {num_total:,} images leaves one part empty")
    order = keyed_permutation(num_total, Purpose.HELD_OUT, seed)
    return order[num_held_out:], order[:num_held_out]
