"""D-iGPT (arXiv 2312.02147), one image at a time."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .transformer import (
    Weights,
    attend,
    block,
    depth_of,
    embed_patches,
    layer_norm,
    linear,
    mlp,
    self_attention,
    sincos,
)


class Shape(NamedTuple):
    """What the weights do not tell."""

    patch_size: int
    segment_side: int
    num_heads: int
    decoder_heads: int
    taps: tuple[int, ...]  # encoder layers, counted from 1
    teacher_grid: int


class Output(NamedTuple):
    """Of one image."""

    layers: list[Tensor]  # n x D: embedding, then every encoder layer; visible segments in order, then the class token
    predictions: dict[str, Tensor]  # n x C, before resizing
    losses: dict[str, Tensor]


def patches_of(segment: int, grid: int, per_side: int) -> list[int]:
    """Raster numbers of the patches of a segment, row by row."""
    side = grid // per_side
    top, left = (segment // per_side) * side, (segment % per_side) * side
    return [row * grid + column for row in range(top, top + side) for column in range(left, left + side)]


def resize(values: Tensor, side: int, new_side: int) -> Tensor:
    """`side^2 x C` -> `new_side^2 x C`, bilinear: pixel centres at (i + 1/2), edges repeated."""

    def sources(place: int) -> list[tuple[int, float]]:
        at = max((place + 0.5) * side / new_side - 0.5, 0.0)
        low = min(math.floor(at), side - 1)
        return [(low, 1 - (at - low)), (min(low + 1, side - 1), at - low)]

    return torch.stack(
        [
            sum(
                weight_y * weight_x * values[y * side + x]
                for y, weight_y in sources(row)
                for x, weight_x in sources(column)
            )
            for row in range(new_side)
            for column in range(new_side)
        ]
    )


def decode(
    taps: list[Tensor],
    queried: list[int],
    weights: Weights,
    name: str,
    *,
    grid: int,
    num_heads: int,
    allowed: list[list[bool]],
) -> Tensor:
    """Return the semantic tokens of the `queried` patches, then of the class."""
    depth = depth_of(weights, f"{name}.blocks")
    normed = [layer_norm(tap, weights, f"{name}.tap_norm", eps=1e-5) for tap in taps]
    projected = linear(torch.cat(normed, dim=1), weights, f"{name}.tap_proj")
    token = weights[f"{name}.query_token"][0, 0]
    positions = sincos(len(token), grid)
    x = torch.stack([token + positions[patch] for patch in queried] + [token])
    for layer in range(depth):
        prefix = f"{name}.blocks.{layer}"
        x = x + self_attention(
            layer_norm(x, weights, f"{prefix}.norm1"), weights, f"{prefix}.self_attn", num_heads, allowed
        )
        # Channel-major, layer-minor.
        features = layer_norm(projected[:, layer::depth], weights, f"{prefix}.norm_features")
        q = linear(layer_norm(x, weights, f"{prefix}.norm_query"), weights, f"{prefix}.cross_attn.q")
        k, v = linear(features, weights, f"{prefix}.cross_attn.kv").split(x.shape[1], dim=1)
        x = x + linear(attend(q, k, v, num_heads, allowed), weights, f"{prefix}.cross_attn.proj")
        x = x + mlp(layer_norm(x, weights, f"{prefix}.norm2"), weights, f"{prefix}.mlp")
    return linear(layer_norm(x, weights, f"{name}.norm"), weights, f"{name}.head")


def digpt(image: Tensor, teacher_tokens: Tensor, weights: Weights, shape: Shape, order: list[int]) -> Output:
    """`order`: raster number of the segment at each place; `teacher_tokens`: class token, then patches."""
    grid = image.shape[1] // shape.patch_size
    per_side = grid // shape.segment_side
    places = {"generative": order[1:], "discriminative": order[:-1]}
    patches = {
        name: [patch for number in numbers for patch in patches_of(number, grid, per_side)]
        for name, numbers in places.items()
    }
    visible = patches["discriminative"]

    # The place of each token's segment; the class token, at the end, counts to the last visible one.
    place = [number // shape.segment_side**2 for number in range(len(visible))] + [len(order) - 2]
    allowed = [[key <= query for key in place] for query in place]

    embedded = embed_patches(image, weights, shape.patch_size)
    positions = sincos(embedded.shape[1], grid)
    x = torch.stack([embedded[patch] + positions[patch] for patch in visible] + [weights["encoder.cls_token"][0, 0]])
    layers = [x]
    for layer in range(depth_of(weights, "encoder.blocks")):
        layers.append(block(layers[-1], weights, f"encoder.blocks.{layer}", shape.num_heads, allowed))

    predictions, losses = {}, {}
    for name in places:
        if f"decoders.{name}.query_token" not in weights:
            continue
        predictions[name] = decode(
            [layers[layer] for layer in shape.taps],
            patches[name],
            weights,
            f"decoders.{name}",
            grid=grid,
            num_heads=shape.decoder_heads,
            allowed=allowed,
        )
        *segments, class_prediction = predictions[name].split([shape.segment_side**2] * len(places[name]) + [1])
        pairs = [(class_prediction[0], teacher_tokens[0])]
        for number, segment in zip(places[name], segments, strict=True):
            resized = resize(segment, shape.segment_side, shape.teacher_grid // per_side)
            targets = patches_of(number, shape.teacher_grid, per_side)
            pairs += [(got, teacher_tokens[1 + target]) for got, target in zip(resized, targets, strict=True)]
        cosines = [(got @ target) / (got.norm() * target.norm()) for got, target in pairs]
        losses[name] = torch.stack([2 - 2 * cosine for cosine in cosines]).mean()
    return Output(layers, predictions, losses)
