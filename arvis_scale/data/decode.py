"""From the bytes of one image file to 8-bit RGB."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

# Pillow's name of a format -> the member extension in a shard. MPO is what phones write: a JPEG with more pictures
# behind it.
EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}

# What Pillow's decoders are seen to raise on damaged files.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class UnreadableImageError(ValueError):
    """Bytes that are not one whole JPEG, PNG or WebP image; the message is the reason in one line."""


def image_extension(data: bytes) -> str:
    """Decode the whole image to prove that it can be read; return its extension (`jpg`, `png`, `webp`).

    The extension follows the content, not the file name. Raises `UnreadableImageError`.
    """
    image = _load(data)
    _to_rgb(image)
    return EXTENSIONS[image.format or ""]


def decode_rgb(data: bytes) -> Image.Image:
    """Decode to an 8-bit RGB image; the first frame of an animation, alpha dropped, 16 bits scaled to 8.

    Raises `UnreadableImageError`.
    """
    return _to_rgb(_load(data))


def _load(data: bytes) -> Image.Image:
    if not data:
        raise UnreadableImageError("the file is empty")
    try:
        image = Image.open(BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
        image.load()
    except Image.UnidentifiedImageError as error:
        raise UnreadableImageError("not a JPEG, PNG or WebP image") from error
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(" ".join(str(error).split()) or type(error).__name__) from error
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # Pillow clips 16-bit greys at 255 when it converts them, which turns most pictures white.
        grey = np.asarray(image).astype(np.float64) / 257.0  # 65535 -> 255
        return Image.fromarray(np.rint(grey).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # a palette with alpha per colour converts without loss only through RGBA
    return image.convert("RGB")
