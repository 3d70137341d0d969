"""What a build sees of images, and its summary for the index: sizes, formats, the colors of a sample."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

COLOR_SAMPLE = 1000  # images; the mean of so many is known to a few thousandths


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """One image as it stands in a shard; `colors`, where they were measured, are those of `color_moments`."""

    num_bytes: int
    extension: str
    width: int
    height: int
    colors: tuple[float, ...] | None = None


def color_moments(image: Image.Image) -> tuple[float, ...]:
    """Return the means and the mean squares of R, G and B over the pixels of an RGB image, values from 0 to 1."""
    counts = np.array(image.histogram(), dtype=np.float64).reshape(3, 256)
    values = np.arange(256) / 255.0
    total = counts.sum(axis=1)
    return (*(counts @ values / total).tolist(), *(counts @ values**2 / total).tolist())


def summarize(facts: Sequence[ImageFacts]) -> dict[str, Any]:
    """Return the statistics of images as JSON.

    Sizes are in pixels and bytes. Means and standard deviations of the channels count every image of the color sample
    alike, whatever its size; the deviation is that of a pixel from the mean of the sample.
    """
    summary: dict[str, Any] = {
        "width": _spread([fact.width for fact in facts]),
        "height": _spread([fact.height for fact in facts]),
        "bytes": _spread([fact.num_bytes for fact in facts]),
        "formats": dict(sorted(Counter(fact.extension for fact in facts).items())),
    }
    colors = np.array([fact.colors for fact in facts if fact.colors is not None])
    if len(colors):
        moments = [math.fsum(column) / len(colors) for column in colors.T]
        means, squares = moments[:3], moments[3:]
        summary["channel_images"] = len(colors)
        summary["channel_mean"] = [round(mean, 6) for mean in means]
        summary["channel_std"] = [
            round(math.sqrt(max(square - mean * mean, 0.0)), 6) for mean, square in zip(means, squares, strict=True)
        ]
    return summary


def _spread(values: list[int]) -> dict[str, float]:
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)} if values else {}
