"""What the model sees of an image: a random crop and flip in training, a centered crop in evaluation.

Which part it is follows from the image's size and the sample's seed alone, so that it is known before the image is
decoded, and is the same for every way to decode it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# A crop that does not fit is drawn again, this often (torchvision's RandomResizedCrop).
NUM_CROP_TRIES = 10


@dataclass(frozen=True)
class View:
    """A part of an image, in its pixels: left, top, right, bottom; and whether it is mirrored."""

    box: tuple[float, float, float, float]
    flip: bool


# (width, height of an image) -> the part of it that is seen
ChooseView = Callable[[int, int], View]


def random_view(
    width: int,
    height: int,
    *,
    sample_seed: int,
    crop_scale: tuple[float, float],
    crop_ratio: tuple[float, float],
    horizontal_flip: float,
) -> View:
    """Return a random resized crop, in whole pixels, and flip.

    `crop_scale` bounds the crop's share of the image's area, `crop_ratio` its width over height;
    `horizontal_flip` is the probability of a flip.
    Source: Szegedy et al., "Going deeper with convolutions" (2015), section 6.
    """
    draws: list[float] = np.random.Generator(np.random.PCG64(sample_seed)).random(2 * NUM_CROP_TRIES + 3).tolist()
    return View(_random_box(width, height, crop_scale, crop_ratio, draws), draws[-1] < horizontal_flip)


def centered_view(width: int, height: int) -> View:
    """Return the centered square of the shorter side: what resizing that side and a center crop give."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return View((left, top, left + side, top + side), flip=False)


def _random_box(
    width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float], draws: list[float]
) -> tuple[int, int, int, int]:
    """A crop as left, top, right, bottom in whole pixels; `draws` are uniform in [0, 1), two per try, then two."""
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    for attempt in range(NUM_CROP_TRIES):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * draws[2 * attempt])
        aspect = math.exp(log_low + (log_high - log_low) * draws[2 * attempt + 1])
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int((width - crop_width + 1) * draws[2 * NUM_CROP_TRIES])
            top = int((height - crop_height + 1) * draws[2 * NUM_CROP_TRIES + 1])
            return left, top, left + crop_width, top + crop_height
    # Very long images: the largest centered crop of an allowed ratio.
    crop_width = max(1, min(width, round(height * ratio[1])))
    crop_height = max(1, min(height, round(width / ratio[0])))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height
