"""iGPT (Chen et al., ICML 2020), one image at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .transformer import Weights, block, depth_of, layer_norm, linear

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of red, green, blue


class Output(NamedTuple):
    """Of one image."""

    colors: list[int]  # of the pixels in raster order
    layers: list[Tensor]  # N x D each: after each layer, before any norm
    loss: Tensor


def nearest_color(pixel: list[float], palette: list[list[float]]) -> int:
    """The row of the palette with the smallest distance."""
    distances = [sum((a - b) ** 2 for a, b in zip(pixel, color, strict=True)) for color in palette]
    return distances.index(min(distances))


def colors_of(image: Tensor, palette: list[list[float]], resolution: int) -> list[int]:
    """Each pixel is the mean of a square of the image, red, green and blue from -1 to 1."""
    side = image.shape[1] // resolution
    colors = []
    for row in range(resolution):
        for column in range(resolution):
            square = image[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
            means = [channel.mean().item() for channel in square]
            fractions = [value * std + mean for value, mean, std in zip(means, MEAN, STD, strict=True)]
            colors.append(nearest_color([2 * value - 1 for value in fractions], palette))
    return colors


def igpt(image: Tensor, weights: Weights, palette: list[list[float]], *, resolution: int, num_heads: int) -> Output:
    """Every pixel is predicted from those before it, the first from the start token alone."""
    colors = colors_of(image, palette, resolution)
    places = range(len(colors))
    allowed = [[key <= query for key in places] for query in places]
    tokens = [weights["encoder.start_token"][0, 0]]
    tokens += [weights["encoder.token_embed.weight"][color] for color in colors[:-1]]
    x = torch.stack(tokens) + weights["encoder.pos_embed"][0]
    layers = []
    for layer in range(depth_of(weights, "encoder.blocks")):
        x = block(x, weights, f"encoder.blocks.{layer}", num_heads, allowed)
        layers.append(x)
    probabilities = linear(layer_norm(x, weights, "encoder.norm"), weights, "head").softmax(dim=1)
    losses = [-probabilities[place, color].log() for place, color in enumerate(colors)]
    return Output(colors, layers, torch.stack(losses).mean())
