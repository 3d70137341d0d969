"""A view straight from a JPEG file: no more of it is decoded, and no more pixels are resampled, than the view needs.

The decoder gives the image at 1, 1/2, 1/4 or 1/8 of its size, which it does by leaving out frequencies, and the box of
the view is cut and brought to its size in one step, bicubic with anti-aliasing in 8 bits (torch's kernel). Decoded at
full size the pixels before resampling are Pillow's to the bit.

A box's edges fall between the pixels of a smaller image, where torch's kernel cannot start. So it starts a few output
pixels before the box, at one that falls on the grid, and these are dropped; where there is none the image is decoded
larger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from PIL import Image
from torch.nn.functional import interpolate

from arvis_scale.data.augment import ChooseView, View

# Smaller images are left to the exact path: they cost little there, and sets of them keep their pixels to the bit.
MIN_PIXELS = 128 * 128
# A smaller decoded image must have this many pixels for each one of the view. Frequencies that the decoder leaves out
# would pass bicubic resampling in part; docs/shards.md has what this costs and keeps.
MIN_PIXELS_PER_OUTPUT_PIXEL = 1.3
# How far a view may be shifted, and how many output pixels may be dropped for it; in output pixels.
MAX_SHIFT = 0.05
MAX_DROPPED = 32
# Color spaces of one or three channels; CMYK needs Pillow's conversion.
_COLOR_SPACES = ("YCbCr", "RGB", "Gray")


@dataclass(frozen=True)
class _Span:
    """One side of a box on the grid of a decoded image."""

    # Pixels of the decoded image that are resampled.
    start: int
    stop: int
    # Output pixels per pixel, and how many of them come before the box.
    scale: float
    dropped: int


def fast_view(data: bytes, choose_view: ChooseView, image_size: int) -> npt.NDArray[np.uint8] | None:
    """Return the view of a JPEG file that `choose_view` picks from its size, `3 x image_size x image_size` uint8.

    None where the exact path has to decide: other formats, small or huge or CMYK images, all that the decoder objects
    to.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, color_space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if color_space not in _COLOR_SPACES or not MIN_PIXELS <= width * height <= (Image.MAX_IMAGE_PIXELS or math.inf):
        return None
    view = choose_view(width, height)
    for reduction in (8, 4, 2, 1):
        size = math.ceil(width / reduction), math.ceil(height / reduction)
        spans = _spans(view, reduction, size, image_size)
        if spans is not None:
            break
    else:
        return None
    try:
        pixels = simplejpeg.decode_jpeg(data, min_width=size[0], min_height=size[1])  # H x W x 3
    except ValueError:
        return None
    assert pixels.shape == (size[1], size[0], 3)
    resampled = _resample(pixels, *spans, image_size)
    return resampled[:, :, ::-1] if view.flip else resampled


def _spans(view: View, reduction: int, size: tuple[int, int], image_size: int) -> tuple[_Span, _Span] | None:
    """Return columns and rows of the view's box in the image decoded at `size`; None where that is too small."""
    left, top, right, bottom = view.box
    if reduction > 1 and min(right - left, bottom - top) < reduction * image_size * MIN_PIXELS_PER_OUTPUT_PIXEL:
        return None
    columns = _span(left / reduction, right / reduction, size[0], image_size)
    rows = _span(top / reduction, bottom / reduction, size[1], image_size)
    return None if columns is None or rows is None else (columns, rows)


def _span(low: float, high: float, length: int, image_size: int) -> _Span | None:
    """Return where to start so that an output pixel begins at `low`; None where none of those before it is on the grid.

    Source: output pixel i of torch's kernel covers `[i, i + 1] / scale` of what it is given.
    """
    step = (high - low) / image_size
    for dropped in range(MAX_DROPPED + 1):
        begin = low - dropped * step
        start = round(begin)
        if start < 0:
            return None
        if abs(begin - start) <= MAX_SHIFT * step:
            num_outputs = dropped + image_size
            extent = min(num_outputs * step, length - start)  # shifted, a box may end behind the last pixel
            return _Span(start, math.ceil(start + extent), num_outputs / extent, dropped)
    return None


def _resample(pixels: npt.NDArray[np.uint8], columns: _Span, rows: _Span, image_size: int) -> npt.NDArray[np.uint8]:
    window = torch.from_numpy(pixels[rows.start : rows.stop, columns.start : columns.stop])
    # 1 x 3 x H x W, in the memory order that the kernel is fast on
    window = window.permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
    # torch floors the size that comes out, so that rounding must not make it one smaller.
    scale = (rows.scale * (1 + 1e-9), columns.scale * (1 + 1e-9))
    resampled = interpolate(window, scale_factor=scale, mode="bicubic", antialias=True)[0]
    kept = resampled[:, rows.dropped : rows.dropped + image_size, columns.dropped : columns.dropped + image_size]
    assert kept.shape == (3, image_size, image_size)
    return kept.numpy()
