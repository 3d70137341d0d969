"""XTRA (arXiv 2411.15648), one image at a time, tokens in raster order, every block computed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .transformer import Weights, block, depth_of, embed_patches, layer_norm, mlp, normalize, square


class Shape(NamedTuple):
    """What the weights do not tell."""

    patch_size: int
    block_side: int
    num_heads: int
    predictor_heads: int
    loss: str = "mse"


class Output(NamedTuple):
    """Of one image."""

    encoder_tokens: Tensor  # N x D, after the final norm, in raster order
    predictions: list[Tensor]  # per head, S x 3*(p*k)^2: said at each block, in raster order of blocks
    loss: Tensor


def xtra(image: Tensor, weights: Weights, shape: Shape, order: list[int] | None = None) -> Output:
    """`order`: raster number of the block at each place."""
    grid, side = image.shape[1] // shape.patch_size, shape.block_side
    num_blocks = (grid // side) ** 2
    order = list(range(num_blocks)) if order is None else order
    # The block of patch (row, column), and the place of a block in the order.
    block_of = [(row // side) * (grid // side) + column // side for row in range(grid) for column in range(grid)]
    allowed = [[order.index(key) <= order.index(query) for key in block_of] for query in block_of]

    x = embed_patches(image, weights, shape.patch_size) + weights["encoder.pos_embed"][0]
    for layer in range(depth_of(weights, "encoder.blocks")):
        x = block(x, weights, f"encoder.blocks.{layer}", shape.num_heads, allowed)
    encoded = layer_norm(x, weights, "encoder.norm")
    x = mlp(encoded, weights, "projection") + weights["predictor.pos_embed"][0]
    for layer in range(depth_of(weights, "predictor.blocks")):
        x = block(x, weights, f"predictor.blocks.{layer}", shape.predictor_heads, allowed)
    x = layer_norm(x, weights, "predictor.norm")

    # Inside a block the patches follow in raster order; channel * k*k + row * k + column.
    members = [[patch for patch in range(grid**2) if block_of[patch] == number] for number in range(num_blocks)]
    said = torch.stack([torch.stack([x[patch] for patch in patches], dim=1).flatten() for patches in members])
    targets = [normalize(square(image, number, side * shape.patch_size)) for number in range(num_blocks)]
    predictions, losses = [], []
    for head in range(depth_of(weights, "heads")):
        predictions.append(mlp(said, weights, f"heads.{head}"))
        errors = []
        for place in range(num_blocks - 1 - head):
            difference = predictions[head][order[place]] - targets[order[place + 1 + head]]
            errors.append((difference**2 if shape.loss == "mse" else difference.abs()).mean())
        losses.append(torch.stack(errors).mean())
    return Output(encoded, predictions, torch.stack(losses).mean())
