"""The palette of a data set: the colors that stand for all colors of its images (Chen et al., ICML 2020, section 3.2).

A color is red, green, blue, each from -1 (none) to 1 (full).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.cluster import MiniBatchKMeans

from arvis_scale.atomic import whole_file
from arvis_scale.data.faults import BadSample
from arvis_scale.data.keyed_random import Purpose, keyed_permutation, keyed_seeds
from arvis_scale.data.loader import MAX_REPLACEMENTS
from arvis_scale.data.shards import Split

# Up to this many images give up to this many pixels each: 500 pixels for every color of the largest palette.
MAX_IMAGES = 1000
PIXELS_PER_IMAGE = 256
_BATCH_SIZE = 4096


def palette_of_images(
    split: Split,
    indices: npt.NDArray[np.int64],
    *,
    num_colors: int,
    resolution: int,
    seed: int,
    on_skip: Callable[[BadSample], None] | None = None,
) -> npt.NDArray[np.float32]:
    """Return the centers of k-means over pixels of the images `indices` of `split`, `num_colors x 3`.

    The pixels are those of the centered square reduced to `resolution x resolution`; which images and pixels are taken
    depends on `seed`. Where they show no more than `num_colors` different colors, these are the palette and its last
    row is repeated. Rows are in order of red, green, blue. An image that cannot be used is told to `on_skip` and gives
    its place to another one, without `on_skip` it raises `BadSample`. Raises `ValueError` when too many are such.
    """
    parts = list(islice(_pixels_of_images(split, indices, resolution, seed, on_skip), MAX_IMAGES))
    if not parts:
        raise ValueError(f"none of {len(indices)} training images can be used for a palette; look at the shards")
    pixels = np.concatenate(parts)  # n x 3, uint8
    different = np.unique(pixels, axis=0)
    if len(different) <= num_colors:
        rows = np.minimum(np.arange(num_colors), len(different) - 1)
        return _scaled(different[rows])
    means = MiniBatchKMeans(num_colors, batch_size=_BATCH_SIZE, n_init=1, random_state=seed % 2**32)
    centers = means.fit(_scaled(pixels)).cluster_centers_
    return centers[np.lexsort(centers.T[::-1])].astype(np.float32)


def _pixels_of_images(
    split: Split,
    indices: npt.NDArray[np.int64],
    resolution: int,
    seed: int,
    on_skip: Callable[[BadSample], None] | None,
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield pixels of one usable image after the other, `n x 3`, in the order of a permutation of `indices`."""
    order = keyed_permutation(len(indices), Purpose.PALETTE, seed)
    num_bad = 0  # in a row
    for start in range(0, len(order), MAX_IMAGES):
        samples = indices[order[start : start + MAX_IMAGES]]
        for sample, pixel_seed in zip(samples.tolist(), keyed_seeds(seed, samples).tolist(), strict=True):
            try:
                image = split.image(sample)
            except BadSample as error:
                if on_skip is None:
                    raise
                on_skip(error)
                num_bad += 1
                if num_bad == MAX_REPLACEMENTS:
                    raise ValueError(f"{num_bad} samples in a row cannot be used, the last one: {error}") from error
            else:
                num_bad = 0
                yield _pixels_of(image, pixel_seed, resolution)


def _pixels_of(image: Image.Image, seed: int, resolution: int) -> npt.NDArray[np.uint8]:
    """Return a random choice of the reduced image's pixels, `n x 3`."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    reduced = image.resize((resolution, resolution), Image.Resampling.BOX, (left, top, left + side, top + side))
    pixels = np.asarray(reduced).reshape(-1, 3)
    generator = np.random.Generator(np.random.PCG64(seed))
    return pixels[generator.permutation(len(pixels))[:PIXELS_PER_IMAGE]]


def _scaled(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return pixels.astype(np.float32) / 127.5 - 1


def save_palette(palette: npt.NDArray[np.float32], path: Path) -> None:
    """Write the palette as a numpy file, whole or not at all."""
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.save(file, palette, allow_pickle=False)


def load_palette(path: Path, num_colors: int) -> npt.NDArray[np.float32]:
    """Read what `save_palette` wrote; `ValueError` names the file when it is no palette of `num_colors` colors."""
    try:
        palette = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is no palette ({error}); remove it and start the run again") from error
    if palette.shape != (num_colors, 3) or palette.dtype != np.float32:
        raise ValueError(
            f"{path} holds {palette.dtype} {palette.shape}, not float32 ({num_colors}, 3); remove it and start again"
        )
    return palette
