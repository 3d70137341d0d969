"""The pieces of a vision transformer (arXiv 2010.11929), with parameter names as timm has them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from arvis_scale.models import draws

NORM_EPS = 1e-6


def layer_norm(width: int) -> nn.LayerNorm:
    """Return the LayerNorm that every method uses unless it says otherwise (eps 1e-6)."""
    return nn.LayerNorm(width, eps=NORM_EPS)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """`B x N x D` -> `B x heads x N x D/heads`."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """`B x heads x N x D/heads` -> `B x N x D`."""
    return x.transpose(1, 2).flatten(2)


def check_heads(width: int, num_heads: int) -> None:
    """Raise `ValueError` unless `num_heads` heads share `width` channels evenly."""
    if num_heads < 1 or width % num_heads:
        raise ValueError(f"num_heads={num_heads} does not divide width={width}; choose a divisor")


def check_image_size(images: Tensor, image_size: int) -> None:
    """Raise `ValueError` unless `images` are `B x 3 x image_size x image_size`."""
    if images.shape[1:] != (3, image_size, image_size):
        got = " x ".join(map(str, images.shape[1:]))
        raise ValueError(f"images are {got}, the model takes 3 x {image_size} x {image_size}")


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(
        self,
        *,
        width: int,  # channels
        num_heads: int,  # divides width
        bias: bool = True,  # of both linear maps
        causal: bool = False,  # without a mask, a token attends to itself and the tokens before it
    ) -> None:
        super().__init__()
        check_heads(width, num_heads)
        self.num_heads = num_heads
        self.causal = causal
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`B x N x D` -> `B x N x D`; `mask`: bool, true where a row may attend, broadcast to `B x heads x N x N`."""
        q, k, v = (split_heads(part, self.num_heads) for part in self.qkv(x).chunk(3, dim=-1))
        # Kernels skip what is_causal hides; a mask that says the same is computed in full.
        is_causal = self.causal and mask is None
        return self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal)))


class Mlp(nn.Module):
    """Linear, GELU (exact), Linear."""

    def __init__(
        self,
        *,
        width: int,  # input channels
        hidden: int,  # hidden channels
        output: int,  # output channels
        bias: bool = True,  # of the first linear map
        output_bias: bool | None = None,  # of the second; None: as the first
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden, bias=bias)
        self.fc2 = nn.Linear(hidden, output, bias=bias if output_bias is None else output_bias)

    def forward(self, x: Tensor) -> Tensor:
        """`... x width` -> `... x output`."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer layer with stochastic depth (arXiv 1603.09382) on both of its branches."""

    def __init__(
        self,
        *,
        width: int,  # channels
        num_heads: int,  # divides width
        mlp_hidden: int,  # hidden channels of the MLP
        bias: bool = True,  # of attention and MLP
        causal: bool = False,  # without a mask, a token attends to itself and the tokens before it
        drop_path: float = 0.0,  # probability of skipping a branch in training
        stream: int = 0,  # stream of `draws` that this layer alone draws from
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.stream = stream
        self.norm1 = layer_norm(width)
        self.attn = Attention(width=width, num_heads=num_heads, bias=bias, causal=causal)
        self.norm2 = layer_norm(width)
        self.mlp = Mlp(width=width, hidden=mlp_hidden, output=width, bias=bias)

    def forward(self, x: Tensor, mask: Tensor | None = None, sample_seeds: Tensor | None = None) -> Tensor:
        """`B x N x D` -> `B x N x D`; `sample_seeds` (int64, `B`) is needed in training mode where `drop_path` > 0."""
        if not (self.training and self.drop_path > 0):
            x = x + self.attn(self.norm1(x), mask)
            return x + self.mlp(self.norm2(x))
        if sample_seeds is None:
            raise ValueError('stochastic depth draws from batch["sample_seeds"] in training mode; the batch has none')
        scale = draws.keep_scale(sample_seeds, self.stream, self.drop_path, num=2).to(x.dtype)  # B x 2
        x = x + self.attn(self.norm1(x), mask) * scale[:, 0, None, None]
        return x + self.mlp(self.norm2(x)) * scale[:, 1, None, None]


class PatchConv(nn.Conv2d):
    """Convolution that takes images of any precision: they come in float32, the model may be cast to bfloat16."""

    def forward(self, input: Tensor) -> Tensor:
        """`B x 3 x H x W` -> `B x D x H/p x W/p`, in the precision of the weights."""
        return super().forward(input.to(self.weight.dtype))


class PatchEmbed(nn.Module):
    """Non-overlapping patches, each mapped to a token by one shared linear map."""

    def __init__(
        self,
        *,
        image_size: int,  # side of the image in pixels
        patch_size: int,  # side of a patch in pixels, divides image_size
        width: int,  # channels of a token
    ) -> None:
        super().__init__()
        if patch_size < 1 or image_size % patch_size:
            raise ValueError(f"patch_size={patch_size} does not divide image_size={image_size}; choose a divisor")
        self.image_size = image_size
        self.patch_size = patch_size
        self.grid = image_size // patch_size
        self.proj = PatchConv(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """`B x 3 x H x W` -> `B x N x D` in raster order."""
        check_image_size(images, self.image_size)
        return self.proj(images).flatten(2).transpose(1, 2)
