"""MAE (arXiv 2111.06377), one image at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .transformer import Weights, block, depth_of, embed_patches, layer_norm, linear, normalize, sincos, square


class Output(NamedTuple):
    """Of one image."""

    predictions: Tensor  # N x 3*p*p
    loss: Tensor


def mae(
    image: Tensor, weights: Weights, *, patch_size: int, num_heads: int, decoder_heads: int, visible: list[int]
) -> Output:
    """The encoder reads the class token and the patches `visible`; the others are predicted."""
    grid = image.shape[1] // patch_size
    width = weights["encoder.cls_token"].shape[2]
    x = embed_patches(image, weights, patch_size) + sincos(width, grid)
    x = torch.stack([weights["encoder.cls_token"][0, 0], *(x[patch] for patch in visible)])
    x = _blocks(x, weights, "encoder.blocks", num_heads)
    x = linear(layer_norm(x, weights, "encoder.norm"), weights, "decoder.embed")
    positions = sincos(x.shape[1], grid)
    tokens = [x[0]]
    for patch in range(grid**2):
        token = x[1 + visible.index(patch)] if patch in visible else weights["decoder.mask_token"][0, 0]
        tokens.append(token + positions[patch])
    x = _blocks(torch.stack(tokens), weights, "decoder.blocks", decoder_heads)
    predictions = linear(layer_norm(x, weights, "decoder.norm"), weights, "decoder.proj")[1:]
    errors = []
    for patch in range(grid**2):
        if patch not in visible:
            errors.append(((predictions[patch] - normalize(square(image, patch, patch_size))) ** 2).mean())
    return Output(predictions, torch.stack(errors).mean())


def _blocks(x: Tensor, weights: Weights, name: str, num_heads: int) -> Tensor:
    everything = [[True] * len(x)] * len(x)
    for layer in range(depth_of(weights, name)):
        x = block(x, weights, f"{name}.{layer}", num_heads, everything)
    return x
