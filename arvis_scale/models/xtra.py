"""XTRA (arXiv 2411.15648): an encoder with a block causal mask, trained to predict the next block of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from arvis_scale.models import initialization
from arvis_scale.models.encoder import Encoder, take_tokens
from arvis_scale.models.masks import block_causal_mask, block_order, check_divides
from arvis_scale.models.objective import Objective
from arvis_scale.models.pixels import from_squares, normalize_squares, to_squares
from arvis_scale.models.presets import EncoderSize
from arvis_scale.models.vit import Block, Mlp, layer_norm


class BlockCausalEncoder(Encoder):
    """Encoder that computes block by block under the block causal mask, in pretraining and at transfer."""

    block_order: Tensor  # N: raster number of the patch at each place
    block_mask: Tensor  # N x N

    def __init__(
        self,
        *,
        size: EncoderSize,  # width, depth, heads, MLP
        image_size: int,  # side of the image in pixels
        patch_size: int,  # side of a patch in pixels
        block_side: int,  # side of a block in patches
        drop_path: float,  # stochastic depth of the last layer
    ) -> None:
        super().__init__(
            size=size, image_size=image_size, patch_size=patch_size, learned_positions=True, drop_path=drop_path
        )
        check_divides(block_side, self.grid, "block_side")
        self.num_blocks = (self.grid // block_side) ** 2
        self.tokens_per_block = block_side**2
        self.register_buffer("block_order", block_order(self.grid, block_side), persistent=False)
        self.register_buffer("block_mask", block_causal_mask(self.num_blocks, self.tokens_per_block), persistent=False)

    def layer_outputs(self, images: Tensor, layers: Sequence[int], sample_seeds: Tensor | None = None) -> list[Tensor]:
        """As `Encoder.layer_outputs`, with the block causal mask on."""
        outputs = self(
            images, layers=layers, token_order=self.block_order, mask=self.block_mask, sample_seeds=sample_seeds
        )
        raster = self.block_order.argsort()
        return [take_tokens(output, raster) for output in outputs]


class BlockPredictor(nn.Module):
    """Transformer over the projected encoder tokens, with its own learned positions and a final norm."""

    def __init__(
        self,
        *,
        width: int,  # channels
        depth: int,  # layers
        num_heads: int,  # divides width
        num_patches: int,  # tokens of a whole image
    ) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, num_patches, width))  # in raster order
        self.blocks = nn.ModuleList(Block(width=width, num_heads=num_heads, mlp_hidden=4 * width) for _ in range(depth))
        self.norm = layer_norm(width)

    def forward(self, tokens: Tensor, token_order: Tensor, mask: Tensor) -> Tensor:
        """`B x n x P` -> `B x n x P`; `token_order` (`n`) tells the raster number of each token."""
        x = tokens + take_tokens(self.pos_embed, token_order)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)


class Xtra(Objective):
    """Mean squared error between the prediction made at block s and the normalised pixels of block s + 1."""

    encoder: BlockCausalEncoder

    def __init__(
        self,
        *,
        size: EncoderSize,  # of the encoder
        image_size: int,  # side of the image in pixels
        patch_size: int,  # side of a patch in pixels
        block_side: int,  # side of a block in patches
        projection_hidden: int,  # hidden channels of the projection
        predictor_width: int,  # channels of the predictor
        predictor_depth: int,  # layers of the predictor
        predictor_heads: int,  # attention heads of the predictor
        head_hidden: int,  # hidden channels of the pixel head
        drop_path: float,  # stochastic depth of the encoder's last layer
    ) -> None:
        super().__init__()
        self.encoder = BlockCausalEncoder(
            size=size, image_size=image_size, patch_size=patch_size, block_side=block_side, drop_path=drop_path
        )
        if self.encoder.num_blocks < 2:
            raise ValueError(f"block_side={block_side} makes the image one block, which leaves nothing to predict")
        self.block_pixels = block_side * patch_size  # side of a block in pixels
        self.projection = Mlp(
            width=size.width, hidden=projection_hidden, output=predictor_width, bias=True, output_bias=False
        )
        self.predictor = BlockPredictor(
            width=predictor_width,
            depth=predictor_depth,
            num_heads=predictor_heads,
            num_patches=self.encoder.num_patches,
        )
        self.head = Mlp(
            width=predictor_width * self.encoder.tokens_per_block,
            hidden=head_hidden,
            output=3 * self.block_pixels**2,
        )
        self.apply(initialization.truncated_normal)

    def predict_blocks(self, images: Tensor, num_blocks: int, sample_seeds: Tensor | None = None) -> Tensor:
        """Return what each of the first `num_blocks` blocks says of its successor, `B x num_blocks x 3*(p*k)^2`.

        Later blocks cannot be seen by these (the mask is block causal), so they are not computed at all.
        """
        num_tokens = num_blocks * self.encoder.tokens_per_block
        order = self.encoder.block_order[:num_tokens]
        mask = self.encoder.block_mask[:num_tokens, :num_tokens]
        [tokens] = self.encoder(images, token_order=order, mask=mask, sample_seeds=sample_seeds)  # B x n x D
        tokens = self.projection(self.encoder.norm(tokens))  # B x n x P
        tokens = self.predictor(tokens, order, mask)
        by_block = tokens.unflatten(1, (num_blocks, self.encoder.tokens_per_block))  # B x S x k*k x P
        # Channel-major, as released: channel * k*k + row * k + column.
        return self.head(by_block.transpose(2, 3).flatten(2))

    def image_losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of each image, `B`; there are no parts."""
        targets = normalize_squares(to_squares(batch["images"], self.block_pixels)[:, 1:]).values
        predictions = self.predict_blocks(batch["images"], self.encoder.num_blocks - 1, batch.get("sample_seeds"))
        return (predictions.float() - targets).square().mean(dim=(1, 2)), {}

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the images, and their blocks after the first as predicted, in the targets' own mean and variance."""
        images = batch["images"]
        squares = to_squares(images, self.block_pixels)
        predictions = self.predict_blocks(images, self.encoder.num_blocks - 1, batch.get("sample_seeds")).float()
        undone = normalize_squares(squares[:, 1:]).undo(predictions)
        predicted = torch.cat([squares[:, :1], undone.to(squares.dtype)], dim=1)
        return {"target": images, "prediction": from_squares(predicted, self.block_pixels, images.shape[-1])}
