"""Pixels as colors of a palette: rows of red, green, blue, each from -1 (none) to 1 (full)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from arvis_scale.models.images import denormalize, normalize_fractions

# As many as iGPT uses (Chen et al., ICML 2020).
MAX_COLORS = 512


def uniform_palette(num_colors: int) -> Tensor:
    """Return colors spread evenly over the cube of red, green and blue, float32, `num_colors x 3`.

    It stands in until the palette of a run's own images is known. Raises `ValueError` unless 2 <= `num_colors` <= 512.
    """
    if not 2 <= num_colors <= MAX_COLORS:
        raise ValueError(f"palette_size={num_colors} must lie between 2 and {MAX_COLORS}")
    side = math.ceil(round(num_colors ** (1 / 3), 6))
    axis = torch.linspace(-1, 1, side)
    cube = torch.cartesian_prod(axis, axis, axis)  # side^3 x 3
    return cube[torch.linspace(0, side**3 - 1, num_colors).round().to(torch.int64)]


@torch.no_grad()
def nearest_colors(images: Tensor, palette: Tensor, resolution: int) -> Tensor:
    """Return the row of `palette` nearest to each pixel of the reduced images, int64, `B x resolution^2`, raster order.

    `images`: `B x 3 x H x W`, ImageNet-normalized; each is reduced to `resolution x resolution` pixels by averaging
    over areas. Of equally near colors the first is taken.
    """
    reduced = denormalize(images)
    if reduced.shape[-1] != resolution:
        reduced = F.interpolate(reduced, size=(resolution, resolution), mode="area")
    pixels = (2 * reduced - 1).flatten(2).transpose(1, 2)  # B x N x 3
    # A matrix product would round, on a GPU to few bits, and with it the choice between near colors.
    distances = torch.cdist(pixels, palette.float(), compute_mode="donot_use_mm_for_euclid_dist")  # B x N x K
    return distances.argmin(dim=2)


def colors_to_images(colors: Tensor, palette: Tensor, image_size: int) -> Tensor:
    """Return `B x 3 x image_size x image_size` ImageNet-normalized images of square grids of colors, int64, `B x N`."""
    side = math.isqrt(colors.shape[1])
    fractions = (palette.float()[colors] + 1) / 2  # B x N x 3
    images = fractions.transpose(1, 2).unflatten(2, (side, side))
    return F.interpolate(normalize_fractions(images), size=(image_size, image_size), mode="nearest")
