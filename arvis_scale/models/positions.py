"""Fixed two-dimensional sine-cosine position embeddings."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_positions(width: int, grid: int) -> Tensor:
    """Return the positions of a `grid x grid` raster, float32, `grid^2 x width`.

    As in MAE (arXiv 2111.06377): the first half of the channels encodes the column, the second the row; each half is
    sines, then cosines, of frequencies 10000^(-i / (width / 4)). Raises `ValueError` unless 4 divides `width`.
    """
    if width % 4:
        raise ValueError(f"width={width} is not a multiple of 4, which two-dimensional sine-cosine positions need")
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * frequency  # grid x width/4
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)  # grid x width/2
    column = axis[None].expand(grid, grid, -1)
    row = axis[:, None].expand(grid, grid, -1)
    return torch.cat([column, row], dim=2).flatten(0, 1).to(torch.float32)
