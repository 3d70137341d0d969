"""Small image folders and the shards built from them."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from arvis_scale.data.build import build_shards
from arvis_scale.data.shards import ShardedDataset, open_shards

ImageMaker = Callable[..., bytes]


@pytest.fixture(scope="session")
def image_bytes() -> ImageMaker:
    """Maker of an encoded image of smooth colours that differ by seed."""

    def make(seed: int, image_format: str = "PNG", size: tuple[int, int] = (20, 16), mode: str = "RGB") -> bytes:
        corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
        image = Image.fromarray(corners).resize(size, Image.Resampling.BICUBIC).convert(mode)
        buffer = BytesIO()
        image.save(buffer, format=image_format)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, image_bytes: ImageMaker) -> Path:
    """A labelled folder: train 2 x 12 PNG, test 2 x 4 JPEG. Read-only."""
    root = tmp_path_factory.mktemp("source") / "photos"
    for split, suffix, num_images in (("train", "png", 12), ("test", "jpg", 4)):
        for number, name in enumerate(("cat", "dog")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for image in range(num_images):
                seed = 1000 * number + 100 * (split == "test") + image
                data = image_bytes(seed, "PNG" if suffix == "png" else "JPEG")
                (folder / f"{image:04d}.{suffix}").write_bytes(data)
    return root


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """The folder of shards of `photos`, 7 samples a shard: 4 train shards, 2 test shards. Read-only."""
    destination = tmp_path_factory.mktemp("built") / "photos"
    build_shards(photos, destination, samples_per_shard=7)
    return destination


@pytest.fixture(scope="session")
def dataset(shards: Path) -> ShardedDataset:
    return open_shards(shards)
