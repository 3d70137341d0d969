"""Pixel targets: images cut into squares, and their normalisation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def to_squares(images: Tensor, side: int) -> Tensor:
    """Cut `B x 3 x H x W` into squares of `side` pixels, `B x S x (3 * side * side)`.

    Squares are in raster order; the values of one are in channel, row, column order.
    """
    batch, channels, height, width = images.shape
    cut = images.reshape(batch, channels, height // side, side, width // side, side)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * side * side)


def from_squares(squares: Tensor, side: int, image_size: int) -> Tensor:
    """Paste squares back into `B x 3 x image_size x image_size`; the inverse of `to_squares`."""
    per_side = image_size // side
    cut = squares.reshape(squares.shape[0], per_side, per_side, 3, side, side)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(squares.shape[0], 3, image_size, image_size)


class NormalizedSquares(NamedTuple):
    """Squares with zero mean and unit variance each, and what undoes it."""

    values: Tensor  # B x S x V
    mean: Tensor  # B x S x 1
    std: Tensor  # B x S x 1

    def undo(self, values: Tensor) -> Tensor:
        """Return `values`, in normalised units, in the units of the images."""
        return values * self.std + self.mean


def normalize_squares(squares: Tensor) -> NormalizedSquares:
    """Return `(square - mean) / sqrt(var + 1e-6)` of each square in float32; `var` is unbiased (divides by n - 1)."""
    squares = squares.to(torch.float32)
    var, mean = torch.var_mean(squares, dim=-1, keepdim=True)
    std = (var + 1e-6).sqrt()
    return NormalizedSquares((squares - mean) / std, mean, std)
