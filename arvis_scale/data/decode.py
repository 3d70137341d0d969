"""From the bytes of one image file to 8-bit RGB."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

from arvis_scale.data.faults import Reason

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
)


class UnreadableImageError(ValueError):
    """Bytes that are not one whole JPEG, PNG or WebP image; the message says why in one line, `reason` in one word."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


def image_extension(data: bytes) -> str:
    """Decode the whole image to prove that it can be read; return its extension (`jpg`, `png`, `webp`).

    The extension follows the content, not the file name. Raises `UnreadableImageError`.
    """
    return decode_with_extension(data)[1]


def decode_with_extension(data: bytes) -> tuple[Image.Image, str]:
    """Return what `decode_rgb` and `image_extension` do, decoding once. Raises `UnreadableImageError`."""
    image = _load(data)
    return _to_rgb(image), EXTENSIONS[image.format or ""]


def decode_rgb(data: bytes) -> Image.Image:
    """Decode to an 8-bit RGB image; the first frame of an animation, alpha dropped, 16 bits scaled to 8.

    Raises `UnreadableImageError`.
    """
    return _to_rgb(_load(data))


def _load(data: bytes) -> Image.Image:
    if not data:
        raise UnreadableImageError("not_an_image", "the file is empty")
    try:
        image = Image.open(BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
        image.load()
    except Image.UnidentifiedImageError as error:
        raise UnreadableImageError("not_an_image", "not a JPEG, PNG or WebP image") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError("too_large", _one_line(error)) from error
    except _DECODER_ERRORS as error:
        raise UnreadableImageError("damaged_image", _one_line(error)) from error
    return image


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


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
