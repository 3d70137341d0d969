"""What the model sees of an image: a random crop and flip in training, a centred crop in evaluation.

Pillow does the geometry on 8-bit pixels, bicubic, cropping and scaling in one step.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

# A crop that does not fit is drawn again, this often (torchvision's RandomResizedCrop).
NUM_CROP_TRIES = 10


def training_view(
    image: Image.Image,
    sample_seed: int,
    *,
    image_size: int,
    crop_scale: tuple[float, float],
    crop_ratio: tuple[float, float],
    horizontal_flip: float,
) -> npt.NDArray[np.uint8]:
    """Random resized crop and horizontal flip, a function of `image` and `sample_seed` alone; 3 x H x W uint8.

    `crop_scale` bounds the crop's share of the image's area, `crop_ratio` its width over height;
    `horizontal_flip` is the probability of a flip.
    Source: Szegedy et al., "Going deeper with convolutions" (2015), section 6.
    """
    draws: list[float] = np.random.Generator(np.random.PCG64(sample_seed)).random(2 * NUM_CROP_TRIES + 3).tolist()
    box = _random_box(image.width, image.height, crop_scale, crop_ratio, draws)
    pixels = np.asarray(image.resize((image_size, image_size), Image.Resampling.BICUBIC, box=box))  # H x W x 3
    if draws[-1] < horizontal_flip:
        pixels = pixels[:, ::-1]
    return pixels.transpose(2, 0, 1)


def evaluation_view(image: Image.Image, image_size: int) -> npt.NDArray[np.uint8]:
    """The centred square scaled to `image_size`: shorter side resized, then centre crop; 3 x H x W uint8."""
    side = min(image.width, image.height)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    pixels = np.asarray(image.resize((image_size, image_size), Image.Resampling.BICUBIC, box=box))  # H x W x 3
    return pixels.transpose(2, 0, 1)


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
    # Very long images: the largest centred crop of an allowed ratio.
    crop_width = max(1, min(width, round(height * ratio[1])))
    crop_height = max(1, min(height, round(width / ratio[0])))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height
