"""Encoding large images anew with a shorter side of a given length, so that training reads and decodes less."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Reencoding:
    """Images whose shorter side is larger than `shorter_side` pixels become JPEGs of `quality`; no other is touched."""

    shorter_side: int
    quality: int

    def __post_init__(self) -> None:
        if self.shorter_side < 1:
            raise ValueError(f"shorter side {self.shorter_side} is no number of pixels; 288 serves crops of 224")
        if not 1 <= self.quality <= 100:
            raise ValueError(
                f"JPEG quality {self.quality} is not between 1 and 100; 95 is hard to tell from the original"
            )

    def apply(self, data: bytes, decoded: Image.Image) -> bytes | None:
        """Return the smaller JPEG, turned upright by its EXIF orientation, or None where the image stays as it is.

        `decoded` is what `decode_rgb` made of `data`. Bicubic with antialiasing.
        """
        if min(decoded.size) <= self.shorter_side:
            return None
        scale = self.shorter_side / min(decoded.size)
        width, height = (max(1, round(side * scale)) for side in decoded.size)
        image = decoded.resize((width, height), Image.Resampling.BICUBIC)
        orientation = _orientation(data)
        if orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[orientation])
        buffer = BytesIO()
        image.save(buffer, format="JPEG", quality=self.quality)
        return buffer.getvalue()


def _orientation(data: bytes) -> int:
    """The EXIF orientation, 1 (upright) where there is none or the EXIF data is damaged."""
    with Image.open(BytesIO(data)) as image:
        try:
            return int(image.getexif().get(_ORIENTATION, 1))
        except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
            return 1
