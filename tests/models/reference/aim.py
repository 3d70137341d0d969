"""AIM (arXiv 2401.08541), one image at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .transformer import Weights, block, depth_of, embed_patches, layer_norm, linear, mlp, normalize, sincos, square


class Output(NamedTuple):
    """Of one image."""

    predictions: Tensor  # N x 3*p*p: said at each patch
    loss: Tensor


def aim(image: Tensor, weights: Weights, *, patch_size: int, num_heads: int, prefix_length: int) -> Output:
    """Patches `prefix_length` .. N-1 are predicted, each from the one before it."""
    grid = image.shape[1] // patch_size
    patches = range(grid**2)
    allowed = [
        [key <= query or (key < prefix_length and query < prefix_length) for key in patches] for query in patches
    ]
    x = layer_norm(embed_patches(image, weights, patch_size), weights, "encoder.patch_norm")
    positions = sincos(x.shape[1], grid)
    x = x + positions
    for layer in range(depth_of(weights, "encoder.blocks")):
        x = block(x, weights, f"encoder.blocks.{layer}", num_heads, allowed)
    x = linear(layer_norm(x, weights, "encoder.norm") + positions, weights, "head.embed")
    for layer in range(depth_of(weights, "head.blocks")):
        name = f"head.blocks.{layer}"
        x = x + mlp(layer_norm(x, weights, f"{name}.norm"), weights, f"{name}.mlp")
    predictions = linear(layer_norm(x, weights, "head.norm"), weights, "head.proj")
    errors = []
    for patch in range(prefix_length, grid**2):
        difference = predictions[patch - 1] - normalize(square(image, patch, patch_size))
        errors.append((difference**2).mean())
    return Output(predictions, torch.stack(errors).mean())
