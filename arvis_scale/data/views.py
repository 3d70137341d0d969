"""From the bytes of an image file to the pixels that a batch holds: one view, decoded fast or exactly."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image

from arvis_scale.data.augment import ChooseView, View, centered_view, random_view
from arvis_scale.data.decode import decode_rgb
from arvis_scale.data.fast_decode import fast_view


def training_view(
    data: bytes,
    *,
    sample_seed: int,
    image_size: int,
    crop_scale: tuple[float, float],
    crop_ratio: tuple[float, float],
    horizontal_flip: float,
    decoding: str,
) -> npt.NDArray[np.uint8]:
    """Return a random resized crop and flip, a function of `data` and `sample_seed` alone; 3 x H x W uint8.

    The keywords are those of `random_view` and `decode_view`. Raises `UnreadableImageError`.
    """
    choose_view = partial(
        random_view,
        sample_seed=sample_seed,
        crop_scale=crop_scale,
        crop_ratio=crop_ratio,
        horizontal_flip=horizontal_flip,
    )
    return decode_view(data, choose_view, image_size, decoding=decoding)


def evaluation_view(data: bytes, *, sample_seed: int, image_size: int, decoding: str) -> npt.NDArray[np.uint8]:
    """Return the centered square, 3 x H x W uint8; nothing is drawn from the seed. Raises `UnreadableImageError`."""
    return decode_view(data, centered_view, image_size, decoding=decoding)


def decode_view(data: bytes, choose_view: ChooseView, image_size: int, *, decoding: str) -> npt.NDArray[np.uint8]:
    """Return the view that `choose_view` picks from the image's size, `3 x image_size x image_size` uint8.

    `decoding`: `fast` decodes a JPEG photograph only as far as the view needs and everything else exactly; `exact`
    decodes all of the image and resamples it with Pillow. Raises `UnreadableImageError`, in both for the same files.
    """
    pixels = fast_view(data, choose_view, image_size) if decoding == "fast" else None
    if pixels is not None:
        return pixels
    image = decode_rgb(data)
    return _exact_view(image, choose_view(image.width, image.height), image_size)


def _exact_view(image: Image.Image, view: View, image_size: int) -> npt.NDArray[np.uint8]:
    """Cut and scale in one step: Pillow, bicubic with anti-aliasing, on 8-bit pixels."""
    pixels = np.asarray(image.resize((image_size, image_size), Image.Resampling.BICUBIC, box=view.box))  # H x W x 3
    if view.flip:
        pixels = pixels[:, ::-1]
    return pixels.transpose(2, 0, 1)
