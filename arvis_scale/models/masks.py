"""Attention masks (bool, true: may attend) and the token orders that belong to them.

Patches are numbered in raster order. A block (XTRA) or segment (D-iGPT) is a square of `side x side` patches; blocks
are numbered in raster order of blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_divides(side: int, grid: int, name: str) -> None:
    """Raise `ValueError` unless squares of `side` patches tile a grid of `grid x grid` patches."""
    if side < 1 or grid % side:
        raise ValueError(
            f"{name}={side} does not divide the grid of {grid} x {grid} patches; choose a divisor of {grid}"
        )


def block_order(grid: int, side: int) -> Tensor:
    """Return the raster number of the patch at each place when patches are laid out block by block, int64, `grid^2`.

    Inside a block patches are in raster order.
    """
    check_divides(side, grid, "side")
    num_sides = grid // side
    raster = torch.arange(grid * grid).view(num_sides, side, num_sides, side)
    return raster.permute(0, 2, 1, 3).flatten()


def block_causal_mask(num_blocks: int, tokens_per_block: int) -> Tensor:
    """Return the block causal mask of tokens in block order, `N x N`: block-lower-triangular with dense blocks."""
    block = torch.arange(num_blocks).repeat_interleave(tokens_per_block)
    return block[:, None] >= block[None, :]


def segment_mask(num_segments: int, tokens_per_segment: int) -> Tensor:
    """Return D-iGPT's mask for `num_segments` visible segments and a trailing class token, `(N + 1) x (N + 1)`.

    Full inside a segment, causal across segments; the class token attends to everything and counts as a member of the
    last segment, so that only that segment and itself see it (arXiv 2312.02147, as in its released code).
    """
    mask = block_causal_mask(num_segments, tokens_per_segment)
    mask = torch.cat([mask, mask[-1:]], dim=0)
    return torch.cat([mask, mask[:, -1:]], dim=1)


def prefix_mask(prefix_length: Tensor, num_tokens: int) -> Tensor:
    """Return AIM's prefix attention of each image, `B x 1 x N x N`: bidirectional inside the prefix, causal after.

    `prefix_length`: int64, `B`, the number of leading tokens in the prefix (arXiv 2401.08541, section 3.2).
    """
    place = torch.arange(num_tokens, device=prefix_length.device)
    causal = place[:, None] >= place[None, :]  # N x N
    in_prefix = place[None, :] < prefix_length[:, None]  # B x N, of the key
    return (causal[None] | in_prefix[:, None, :])[:, None]
