"""Parameters and FLOPs of every objective in closed form: numbers in, numbers out, no model built.

The same arithmetic stands in the papers' tables, part by part. A training run does not report these: its `train_flops`
come from `planning.flops`, which counts what torch executes and so cannot fall behind the models. The tests hold the
two equal.

A multiply-add counts as two FLOPs and only matrix products count. Masked attention counts as computed, over all pairs
of the tokens that go in: kernels that skip masked tiles do less. A backward pass costs twice the forward one, except in
the patch embedding, where nobody asks for the gradient of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arvis_scale.models.build import objective_arguments
from arvis_scale.models.digpt import tap_layers
from arvis_scale.models.presets import EncoderSize


@dataclass(frozen=True)
class Cost:
    """What a part of a model costs."""

    # Parameters.
    params: int = 0
    # FLOPs of the forward pass of one image, and of its forward and backward pass.
    forward_flops: int = 0
    train_flops: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.params + other.params,
            self.forward_flops + other.forward_flops,
            self.train_flops + other.train_flops,
        )

    def times(self, count: int) -> Cost:
        """Return the cost of `count` such parts, none shared."""
        return Cost(count * self.params, count * self.forward_flops, count * self.train_flops)


def objective_cost(name: str, **arguments: Any) -> dict[str, Cost]:
    """Return the cost of each part of objective `name`, keyed by its attribute of the model.

    `arguments`: those of `build_objective`. The frozen teacher of D-iGPT is not among the parts.
    """
    return _FORMS[name](**objective_arguments(name, **arguments))


def total_cost(parts: Mapping[str, Cost]) -> Cost:
    """Return the sum of the parts."""
    return sum(parts.values(), start=Cost())


def linear(tokens: int, width: int, output: int, *, bias: bool = True) -> Cost:
    """Return the cost of a linear map of `tokens` vectors."""
    forward = 2 * tokens * width * output
    return Cost(width * output + bias * output, forward, 3 * forward)


def layer_norm(width: int) -> Cost:
    """Return the cost of a LayerNorm: its parameters."""
    return Cost(2 * width)


def attention_products(queries: int, keys: int, width: int) -> Cost:
    """Return the cost of the two products of attention, all heads together."""
    forward = 4 * queries * keys * width
    return Cost(0, forward, 3 * forward)


def self_attention(tokens: int, width: int, *, bias: bool = True) -> Cost:
    """Return the cost of self-attention with its linear maps."""
    return (
        linear(tokens, width, 3 * width, bias=bias)
        + attention_products(tokens, tokens, width)
        + linear(tokens, width, width, bias=bias)
    )


def mlp(tokens: int, width: int, hidden: int, output: int, *, bias: bool = True, output_bias: bool = True) -> Cost:
    """Return the cost of Linear, GELU, Linear."""
    return linear(tokens, width, hidden, bias=bias) + linear(tokens, hidden, output, bias=output_bias)


def transformer_layer(tokens: int, width: int, mlp_hidden: int, *, bias: bool = True) -> Cost:
    """Return the cost of a pre-norm transformer layer."""
    return (
        layer_norm(width).times(2)
        + self_attention(tokens, width, bias=bias)
        + mlp(tokens, width, mlp_hidden, width, bias=bias, output_bias=bias)
    )


def encoder(size: EncoderSize, *, image_size: int, patch_size: int, tokens: int, bias: bool = True) -> Cost:
    """Return the cost of patch embedding and layers; `tokens` of the image's patches and extras go through the layers.

    Positions, class token and norms beside the layers differ by objective and are not included.
    """
    patches = (image_size // patch_size) ** 2
    pixels = 3 * patch_size**2
    embedding = linear(patches, pixels, size.width)
    embedding = Cost(embedding.params, embedding.forward_flops, 2 * embedding.forward_flops)
    return embedding + transformer_layer(tokens, size.width, size.mlp_hidden, bias=bias).times(size.depth)


def xtra_cost(
    *,
    size: EncoderSize,
    image_size: int,
    patch_size: int,
    block_side: int,
    projection_hidden: int,
    predictor_width: int,
    predictor_depth: int,
    predictor_heads: int,
    head_hidden: int,
    drop_path: float,
    blocks_ahead: int,
    loss: str,
    block_orders: int,
) -> dict[str, Cost]:
    """Return the cost of XTRA's parts; the last block, which predicts nothing, is not computed."""
    grid = image_size // patch_size
    per_block, blocks = block_side**2, (grid // block_side) ** 2 - 1
    tokens = blocks * per_block
    width = predictor_width
    layers = transformer_layer(tokens, width, 4 * width).times(predictor_depth)
    heads = [
        mlp(blocks - skipped, width * per_block, head_hidden, 3 * (block_side * patch_size) ** 2)
        for skipped in range(blocks_ahead)
    ]
    return {
        "encoder": encoder(size, image_size=image_size, patch_size=patch_size, tokens=tokens)
        + Cost(grid**2 * size.width)
        + layer_norm(size.width),
        "projection": mlp(tokens, size.width, projection_hidden, width, output_bias=False),
        "predictor": layers + Cost(grid**2 * width) + layer_norm(width),
        "heads": sum(heads, start=Cost()),
    }


def aim_cost(
    *, size: EncoderSize, image_size: int, patch_size: int, head_width: int, head_depth: int, head_expansion: int
) -> dict[str, Cost]:
    """Return the cost of AIM's parts; the head answers at every patch but the last."""
    patches = (image_size // patch_size) ** 2
    answers = patches - 1
    residual = layer_norm(head_width) + mlp(
        answers, head_width, head_expansion * head_width, head_width, bias=False, output_bias=False
    )
    return {
        "encoder": encoder(size, image_size=image_size, patch_size=patch_size, tokens=patches, bias=False)
        + layer_norm(size.width).times(2),
        "head": linear(answers, size.width, head_width)
        + residual.times(head_depth)
        + layer_norm(head_width)
        + linear(answers, head_width, 3 * patch_size**2),
    }


def digpt_cost(
    *,
    size: EncoderSize,
    image_size: int,
    patch_size: int,
    segment_side: int,
    decoders: Sequence[str],
    decoder_width: int,
    decoder_depth: int,
    decoder_heads: int,
    teacher_width: int,
    teacher_grid: int,
) -> dict[str, Cost]:
    """Return the cost of D-iGPT's parts; encoder and decoders see all segments but one, and a class token."""
    tokens = (image_size // patch_size) ** 2 - segment_side**2 + 1
    width = decoder_width
    layer = (
        transformer_layer(tokens, width, 4 * width)
        + layer_norm(width).times(2)
        + linear(tokens, width, width).times(2)
        + linear(tokens, width, 2 * width)
        + attention_products(tokens, tokens, width)
    )
    decoder = (
        layer_norm(size.width)
        + linear(tokens, len(tap_layers(size.depth)) * size.width, decoder_depth * width)
        + Cost(width)
        + layer.times(decoder_depth)
        + layer_norm(width)
        + linear(tokens, width, teacher_width)
    )
    return {
        "encoder": encoder(size, image_size=image_size, patch_size=patch_size, tokens=tokens) + Cost(size.width),
        "decoders": decoder.times(len(decoders)),
    }


def igpt_cost(*, size: EncoderSize, image_size: int, resolution: int, palette_size: int) -> dict[str, Cost]:
    """Return the cost of iGPT's parts; looking up a color's embedding costs nothing."""
    pixels = resolution**2
    embeddings = Cost((palette_size + 1 + pixels) * size.width)
    layers = transformer_layer(pixels, size.width, size.mlp_hidden).times(size.depth)
    return {
        "encoder": embeddings + layers + layer_norm(size.width),
        "head": linear(pixels, size.width, palette_size, bias=False),
    }


def mae_cost(
    *,
    size: EncoderSize,
    image_size: int,
    patch_size: int,
    mask_ratio: float,
    decoder_width: int,
    decoder_depth: int,
    decoder_heads: int,
) -> dict[str, Cost]:
    """Return the cost of MAE's parts; the encoder computes the visible patches, the decoder all of them."""
    patches = (image_size // patch_size) ** 2
    tokens = int(patches * (1 - mask_ratio)) + 1
    width = decoder_width
    return {
        "encoder": encoder(size, image_size=image_size, patch_size=patch_size, tokens=tokens)
        + Cost(size.width)
        + layer_norm(size.width),
        "decoder": linear(tokens, size.width, width)
        + Cost(width)
        + transformer_layer(patches + 1, width, 4 * width).times(decoder_depth)
        + layer_norm(width)
        + linear(patches, width, 3 * patch_size**2),
    }


def clip_tower_cost(size: EncoderSize, *, image_size: int, patch_size: int, token_width: int) -> Cost:
    """Return the cost of a frozen CLIP image tower (arXiv 2103.00020) that projects every token: forward pass only."""
    patches = (image_size // patch_size) ** 2
    tokens = patches + 1
    cost = (
        linear(patches, 3 * patch_size**2, size.width, bias=False)
        + Cost((1 + tokens) * size.width)  # class token, positions
        + layer_norm(size.width).times(2)
        + transformer_layer(tokens, size.width, size.mlp_hidden).times(size.depth)
        + linear(tokens, size.width, token_width, bias=False)
    )
    return Cost(cost.params, cost.forward_flops, cost.forward_flops)


_FORMS: dict[str, Callable[..., dict[str, Cost]]] = {
    "xtra": xtra_cost,
    "aim": aim_cost,
    "digpt": digpt_cost,
    "igpt": igpt_cost,
    "mae": mae_cost,
}
