"""What the references share, for one image at a time, spelled out: no fused kernel, no broadcasting trick.

Weights are a mapping from our parameter names to tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    """`n x in` -> `n x out`, with a bias where there is one."""
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def layer_norm(x: Tensor, weights: Weights, name: str, eps: float = 1e-6) -> Tensor:
    """Zero mean and unit variance of every row, then scale and shift."""
    centered = x - x.mean(dim=1, keepdim=True)
    variance = (centered**2).mean(dim=1, keepdim=True)
    return centered / (variance + eps).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    """Gaussian error linear unit, exact."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def mlp(x: Tensor, weights: Weights, name: str) -> Tensor:
    """Linear, GELU, Linear."""
    return linear(gelu(linear(x, weights, f"{name}.fc1")), weights, f"{name}.fc2")


def attend(q: Tensor, k: Tensor, v: Tensor, num_heads: int, allowed: list[list[bool]]) -> Tensor:
    """`n x D`, `m x D`, `m x D` -> `n x D`; `allowed[i][j]`: query i may see key j."""
    forbidden = ~torch.tensor(allowed)
    size = q.shape[1] // num_heads
    outputs = []
    for head in range(num_heads):
        channels = slice(head * size, (head + 1) * size)
        scores = q[:, channels] @ k[:, channels].T / math.sqrt(size)
        outputs.append(scores.masked_fill(forbidden, -math.inf).softmax(dim=1) @ v[:, channels])
    return torch.cat(outputs, dim=1)


def self_attention(x: Tensor, weights: Weights, name: str, num_heads: int, allowed: list[list[bool]]) -> Tensor:
    """Queries, keys and values are thirds of one linear map."""
    q, k, v = linear(x, weights, f"{name}.qkv").split(x.shape[1], dim=1)
    return linear(attend(q, k, v, num_heads, allowed), weights, f"{name}.proj")


def block(x: Tensor, weights: Weights, name: str, num_heads: int, allowed: list[list[bool]]) -> Tensor:
    """Pre-norm attention and MLP."""
    x = x + self_attention(layer_norm(x, weights, f"{name}.norm1"), weights, f"{name}.attn", num_heads, allowed)
    return x + mlp(layer_norm(x, weights, f"{name}.norm2"), weights, f"{name}.mlp")


def depth_of(weights: Weights, name: str) -> int:
    """How many modules the list `name` holds."""
    return len({key.removeprefix(f"{name}.").split(".")[0] for key in weights if key.startswith(f"{name}.")})


def square(image: Tensor, number: int, side: int) -> Tensor:
    """The values of one square of `side` pixels, squares counted in raster order: channel, row, column."""
    row, column = divmod(number, image.shape[2] // side)
    return image[:, row * side : (row + 1) * side, column * side : (column + 1) * side].flatten()


def embed_patches(image: Tensor, weights: Weights, patch_size: int) -> Tensor:
    """`3 x H x W` -> `N x D`: one linear map of every patch, in raster order."""
    kernel, bias = weights["encoder.patch_embed.proj.weight"], weights["encoder.patch_embed.proj.bias"]
    num_patches = (image.shape[1] // patch_size) * (image.shape[2] // patch_size)
    return torch.stack([kernel.flatten(1) @ square(image, patch, patch_size) + bias for patch in range(num_patches)])


def normalize(values: Tensor) -> Tensor:
    """Zero mean, unit variance (divides by n - 1), eps 1e-6."""
    mean = values.sum() / len(values)
    variance = ((values - mean) ** 2).sum() / (len(values) - 1)
    return (values - mean) / (variance + 1e-6).sqrt()


def sincos(width: int, grid: int) -> Tensor:
    """Positions `N x width`: half the channels say the column, half the row; in each sines, then cosines."""
    quarter = width // 4
    rows = []
    for row in range(grid):
        for column in range(grid):
            values: list[float] = []
            for coordinate in (column, row):
                angles = [coordinate / 10000 ** (i / quarter) for i in range(quarter)]
                values += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            rows.append(values)
    return torch.tensor(rows)
