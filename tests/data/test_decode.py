"""Every kind of JPEG, PNG and WebP comes out as 8-bit RGB."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from arvis_scale.data.build import build_shards
from arvis_scale.data.decode import UnreadableImageError, decode_rgb, image_extension
from arvis_scale.data.shards import open_shards


@pytest.mark.parametrize(
    ("image_format", "mode"),
    [
        *(("JPEG", mode) for mode in ("L", "CMYK")),
        *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGBA")),
        *(("WEBP", mode) for mode in ("RGB", "RGBA")),
    ],
)
def test_modes_decode_to_rgb(image_bytes: Callable[..., bytes], image_format: str, mode: str) -> None:
    image = decode_rgb(image_bytes(3, image_format, mode=mode))
    assert (image.mode, image.size) == ("RGB", (20, 16))
    assert np.asarray(image).std() > 1  # not black, not white


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    buffer = BytesIO()
    Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)).save(buffer, format="PNG")
    assert np.asarray(decode_rgb(buffer.getvalue()))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_palette_with_transparency_keeps_its_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    buffer = BytesIO()
    image.save(buffer, format="PNG", transparency=b"\x80\xff")
    assert np.asarray(decode_rgb(buffer.getvalue())).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_extension_follows_the_content(image_bytes: Callable[..., bytes]) -> None:
    assert [image_extension(image_bytes(0, name)) for name in ("JPEG", "PNG", "WEBP")] == ["jpg", "png", "webp"]


def test_every_cut_of_an_image_is_unreadable(image_bytes: Callable[..., bytes]) -> None:
    for image_format in ("PNG", "JPEG", "WEBP"):
        whole = image_bytes(0, image_format)
        # The last bytes of a PNG are check sums and an end mark, behind the last pixel.
        for length in range(0, len(whole) - 24, 7):
            with pytest.raises(UnreadableImageError):
                decode_rgb(whole[:length])


@pytest.mark.parametrize("name", ["with space.jpg", "dots.in.name.jpg", "UPPER.JPG", "ünïcode 猫.jpeg", "photo.jpe"])
def test_names_of_all_kinds_are_built_and_read(tmp_path: Path, image_bytes: Callable[..., bytes], name: str) -> None:
    folder = tmp_path / "photos" / "my class.v2"
    folder.mkdir(parents=True)
    data = image_bytes(0, "JPEG")
    (folder / name).write_bytes(data)
    report = build_shards(tmp_path / "photos", tmp_path / "shards")
    assert report.classes == ["my class.v2"]
    assert open_shards(tmp_path / "shards").split("train").read(0) == data


def test_a_name_that_is_not_utf8_is_built_and_named(tmp_path: Path, image_bytes: Callable[..., bytes]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for raw, data in ((b"good\xff.png", image_bytes(0)), (b"bad\xff.png", b"text")):
        (Path(str(folder).encode().decode()) / raw.decode("utf-8", "surrogateescape")).write_bytes(data)
    report = build_shards(folder, tmp_path / "shards")
    assert report.num_samples == {"train": 1}
    assert [image.path for image in report.skipped] == ["bad\\xff.png"]
