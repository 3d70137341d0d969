"""The encoder that an objective trains and that probes and fine-tuning use alone: mostly a plain vision transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from arvis_scale.models import draws
from arvis_scale.models.positions import sincos_positions
from arvis_scale.models.presets import EncoderSize
from arvis_scale.models.vit import Block, PatchEmbed, layer_norm


def take_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Return the tokens at `index` (`n`, the same for all images, or `B x n`): `B x N x D` -> `B x n x D`."""
    if index.dim() == 1:
        return tokens.index_select(1, index)
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[2]))


class Backbone(nn.Module):
    """What transfer asks of any encoder: tokens after each of its layers."""

    width: int  # channels of a token
    depth: int  # layers
    blocks: nn.ModuleList  # of Block, one per layer

    def layer_outputs(self, images: Tensor, layers: Sequence[int], sample_seeds: Tensor | None = None) -> list[Tensor]:
        """Return the tokens after each of `layers` (counted from 1), `B x N x D` in raster order."""
        raise NotImplementedError

    def feature_norm(self, layer: int) -> nn.Module:
        """Return what the tokens after `layer` pass through before a linear probe averages them: as a rule nothing."""
        return nn.Identity()

    def run_blocks(
        self, x: Tensor, layers: Sequence[int], mask: Tensor | None = None, sample_seeds: Tensor | None = None
    ) -> list[Tensor]:
        """Return the outputs of `layers` for the embedded tokens `x`, `B x n x D` each; no later layer is computed."""
        if not layers or not all(1 <= layer <= self.depth for layer in layers):
            raise ValueError(f"layers={list(layers)} must lie between 1 and the encoder's depth {self.depth}")
        outputs = {}
        for layer in range(1, max(layers) + 1):
            x = self.blocks[layer - 1](x, mask, sample_seeds)
            outputs[layer] = x
        return [outputs[layer] for layer in layers]


class Encoder(Backbone):
    """Vision transformer (arXiv 2010.11929) whose token order and attention mask the objective chooses."""

    def __init__(
        self,
        *,
        size: EncoderSize,  # width, depth, heads, MLP
        image_size: int,  # side of the image in pixels
        patch_size: int,  # side of a patch in pixels
        learned_positions: bool = False,  # learned position embeddings instead of fixed sine-cosine ones
        patch_norm: bool = False,  # LayerNorm after the patch embedding
        class_token: bool = False,  # a class token (position zero) after the last patch token
        final_norm: bool = True,  # holds a LayerNorm `norm` for the objective to apply to the last layer's output
        bias: bool = True,  # of attention and MLPs
        drop_path: float = 0.0,  # stochastic depth of the last layer; linear from 0 over depth
    ) -> None:
        super().__init__()
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path={drop_path} must lie between 0 and 1, 1 excluded")
        self.width = size.width
        self.depth = size.depth
        self.patch_embed = PatchEmbed(image_size=image_size, patch_size=patch_size, width=size.width)
        self.grid = self.patch_embed.grid
        self.num_patches = self.grid**2
        if learned_positions:
            self.pos_embed = nn.Parameter(torch.zeros(1, self.num_patches, size.width))
        else:
            self.register_buffer("pos_embed", sincos_positions(size.width, self.grid)[None], persistent=False)
        self.patch_norm = layer_norm(size.width) if patch_norm else nn.Identity()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width)) if class_token else None
        self.blocks = nn.ModuleList(
            Block(
                width=size.width,
                num_heads=size.num_heads,
                mlp_hidden=size.mlp_hidden,
                bias=bias,
                drop_path=drop_path * layer / max(size.depth - 1, 1),
                stream=draws.ENCODER_DEPTH_STREAM + layer,
            )
            for layer in range(size.depth)
        )
        self.norm = layer_norm(size.width) if final_norm else nn.Identity()

    def forward(
        self,
        images: Tensor,
        *,
        layers: Sequence[int] | None = None,
        token_order: Tensor | None = None,
        mask: Tensor | None = None,
        sample_seeds: Tensor | None = None,
    ) -> list[Tensor]:
        """Return the outputs of `layers` (counted from 1; None: the last), each `B x n x D`, before the final norm.

        `token_order`: raster numbers of the patches that are computed, in the order of computation, `n` or `B x n`;
        None: all in raster order. A class token follows them. `mask`: bool, true where a row may attend to a column.
        """
        x = self.embed(images, token_order)
        return self.run_blocks(x, [self.depth] if layers is None else layers, mask, sample_seeds)

    def embed(self, images: Tensor, token_order: Tensor | None = None) -> Tensor:
        """Return what the first layer reads, `B x n x D`; see `forward`. Uses `embedding_parts` and nothing else."""
        x = self.patch_norm(self.patch_embed(images))  # B x N x D
        # Fixed positions are a buffer, which DeepSpeed leaves in float32 when it casts the parameters.
        x = x + self.pos_embed.to(x.dtype)
        if token_order is not None:
            x = take_tokens(x, token_order)  # B x n x D
        if self.cls_token is not None:
            x = torch.cat([x, self.cls_token.expand(x.shape[0], -1, -1)], dim=1)
        return x

    @property
    def embedding_parts(self) -> tuple[str, ...]:
        """Names of the modules, parameters and buffers that `embed` uses."""
        class_token = () if self.cls_token is None else ("cls_token",)
        return ("patch_embed", "patch_norm", "pos_embed", *class_token)

    def layer_outputs(self, images: Tensor, layers: Sequence[int], sample_seeds: Tensor | None = None) -> list[Tensor]:
        """Return the patch tokens after each of `layers`, `B x N x D` in raster order, as transfer reads them.

        `layers` count from 1; outputs are taken before the final norm; the class token, where there is one, is left
        out. Attention is full: an encoder whose mask stays on at transfer overrides this method. `sample_seeds` is
        needed only in training mode with stochastic depth.
        """
        outputs = self(images, layers=layers, sample_seeds=sample_seeds)
        return [output[:, : self.num_patches] for output in outputs]
