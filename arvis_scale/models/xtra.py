"""XTRA (arXiv 2411.15648): an encoder with a block causal mask, trained to predict the next block of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from arvis_scale.models import draws, initialization
from arvis_scale.models.encoder import Encoder, take_tokens
from arvis_scale.models.masks import block_causal_mask, block_order, check_divides
from arvis_scale.models.objective import Objective, mean_over_images
from arvis_scale.models.pipeline import Step, block_steps
from arvis_scale.models.pixels import from_squares, normalize_squares, to_squares
from arvis_scale.models.presets import EncoderSize
from arvis_scale.models.vit import Block, Mlp, layer_norm

LOSSES = ("mse", "l1")


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

    def visible(self, num_blocks: int, order: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return raster numbers (`n`) and mask (`n x n`) of the patches of the first `num_blocks` blocks of `order`.

        `order`: raster number of the block at each place, `S`; None: raster order. The mask is the same for all orders.
        """
        num_tokens = num_blocks * self.tokens_per_block
        mask = self.block_mask[:num_tokens, :num_tokens]
        if order is None:
            return self.block_order[:num_tokens], mask
        by_block = self.block_order.view(self.num_blocks, self.tokens_per_block)
        return by_block.index_select(0, order[:num_blocks]).flatten(), mask

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
        x = self.embed(tokens, token_order)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def embed(self, tokens: Tensor, token_order: Tensor) -> Tensor:
        """Return what the first layer reads, `B x n x P`."""
        return tokens + take_tokens(self.pos_embed, token_order)


class Xtra(Objective):
    """Mean error between the predictions made at block s and the normalized pixels of blocks s + 1, s + 2, ...

    With several heads the parts of the loss are `ahead_1_loss`, `ahead_2_loss`, ..., whose mean it is. With several
    block orders a training batch holds `step`; in evaluation mode the order is raster order.
    """

    encoder: BlockCausalEncoder
    orders: Tensor  # orders x S: raster number of the block at each place

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
        blocks_ahead: int = 1,  # heads: head j predicts the j-th block after the one it stands at
        loss: str = "mse",  # of LOSSES
        block_orders: int = 1,  # fixed orders of the blocks, one drawn per step; 1: raster order alone
    ) -> None:
        super().__init__()
        self.encoder = BlockCausalEncoder(
            size=size, image_size=image_size, patch_size=patch_size, block_side=block_side, drop_path=drop_path
        )
        if self.encoder.num_blocks < 2:
            raise ValueError(f"block_side={block_side} makes the image one block, which leaves nothing to predict")
        self._check_options(blocks_ahead, loss, block_orders)
        self.loss = loss
        self.register_buffer("orders", draws.block_orders(block_orders, self.encoder.num_blocks), persistent=False)
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
        self.heads = nn.ModuleList(
            Mlp(
                width=predictor_width * self.encoder.tokens_per_block,
                hidden=head_hidden,
                output=3 * self.block_pixels**2,
            )
            for _ in range(blocks_ahead)
        )
        self.apply(initialization.truncated_normal)

    def _check_options(self, blocks_ahead: int, loss: str, block_orders: int) -> None:
        num_blocks = self.encoder.num_blocks
        if not 1 <= blocks_ahead < num_blocks:
            raise ValueError(
                f"blocks_ahead={blocks_ahead} must lie between 1 and {num_blocks - 1} with {num_blocks} blocks"
            )
        if loss not in LOSSES:
            raise ValueError(f"loss={loss!r} is not known; one of {', '.join(LOSSES)}")
        if not 1 <= block_orders <= num_blocks:
            raise ValueError(
                f"block_orders={block_orders} must lie between 1 and {num_blocks}, one for each block to begin with"
            )

    def block_order(self, step: Tensor | None) -> Tensor | None:
        """Return the raster number of the block at each place, `S`; None: raster order."""
        if len(self.orders) == 1 or not self.training:
            return None
        if step is None:
            raise ValueError('block orders are drawn from batch["step"] in training mode; the batch has none')
        return self.orders.index_select(0, draws.choice_of_step(step, len(self.orders)))[0]

    def block_features(
        self, images: Tensor, num_blocks: int, sample_seeds: Tensor | None = None, order: Tensor | None = None
    ) -> Tensor:
        """Return what the heads read at each of the first `num_blocks` blocks of `order`, `B x num_blocks x P*k*k`.

        Later blocks cannot be seen by these (the mask is block causal), so they are not computed at all.
        """
        token_order, mask = self.encoder.visible(num_blocks, order)
        [tokens] = self.encoder(images, token_order=token_order, mask=mask, sample_seeds=sample_seeds)  # B x n x D
        return self._by_block(self.predictor(self._project(tokens), token_order, mask))

    def predict_blocks(self, images: Tensor, num_blocks: int, sample_seeds: Tensor | None = None) -> Tensor:
        """Return what each of the first `num_blocks` blocks says of its successor, `B x num_blocks x 3*(p*k)^2`."""
        return self.heads[0](self.block_features(images, num_blocks, sample_seeds))

    def image_losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of each image, `B`, and with several heads the part of each."""
        order = self.block_order(batch.get("step"))
        # The last block has no successor.
        features = self.block_features(batch["images"], self.encoder.num_blocks - 1, batch.get("sample_seeds"), order)
        losses = self._head_losses(features, batch["images"], order)
        parts = {f"ahead_{ahead}_loss": loss for ahead, loss in enumerate(losses, start=1)}
        return torch.stack(losses).mean(dim=0), parts if len(parts) > 1 else {}

    def _project(self, tokens: Tensor) -> Tensor:
        return self.projection(self.encoder.norm(tokens))  # B x n x P

    def _by_block(self, tokens: Tensor) -> Tensor:
        """Concatenate the tokens of each block channel-major, as released: channel * k*k + row * k + column."""
        by_block = tokens.unflatten(1, (-1, self.encoder.tokens_per_block))  # B x blocks x k*k x P
        return by_block.transpose(2, 3).flatten(2)

    def _head_losses(self, features: Tensor, images: Tensor, order: Tensor | None) -> list[Tensor]:
        """Return the loss of each image under each head, `B` each."""
        squares = to_squares(images, self.block_pixels)
        if order is not None:
            squares = take_tokens(squares, order)
        targets = normalize_squares(squares[:, 1:]).values  # B x (S-1) x V: of places 2 .. S
        losses = []
        for skipped, head in enumerate(self.heads):
            difference = head(features[:, : targets.shape[1] - skipped]).float() - targets[:, skipped:]
            error = difference.square() if self.loss == "mse" else difference.abs()
            losses.append(error.mean(dim=(1, 2)))
        return losses

    def pipeline_steps(self) -> list[Step]:
        """Return the computation of `forward`, a transformer layer a step."""
        # Orders are drawn again where they are read: that is cheaper than sending them along.
        step = ("step",) if len(self.orders) > 1 else ()
        embedding = tuple(f"encoder.{part}" for part in self.encoder.embedding_parts)
        layout = ("orders", "encoder.block_order", "encoder.block_mask")
        return [
            Step("encoder_0", ("images", *step), (*embedding, *layout), Xtra._pipeline_start),
            *block_steps(
                "encoder",
                "encoder.blocks",
                self.encoder.depth,
                reads=("sample_seeds",),
                parts=layout,
                arguments=lambda model, _, sample_seeds: (model.pipeline_mask(), sample_seeds),
            ),
            Step(
                "predictor_0",
                (f"encoder_{self.encoder.depth}", *step),
                ("encoder.norm", "projection", "predictor.pos_embed", *layout),
                Xtra._pipeline_predictor_start,
            ),
            *block_steps(
                "predictor",
                "predictor.blocks",
                len(self.predictor.blocks),
                parts=layout,
                arguments=lambda model, _: (model.pipeline_mask(),),
            ),
            Step(
                "loss",
                (f"predictor_{len(self.predictor.blocks)}", "images", "weights", *step),
                ("predictor.norm", "heads", "orders"),
                Xtra._pipeline_loss,
            ),
        ]

    def pipeline_mask(self) -> Tensor:
        """Return the mask of all blocks but the last, `n x n`."""
        return self.encoder.visible(self.encoder.num_blocks - 1)[1]

    def _pipeline_start(self, images: Tensor, step: Tensor | None = None) -> Tensor:
        token_order, _ = self.encoder.visible(self.encoder.num_blocks - 1, self.block_order(step))
        return self.encoder.embed(images, token_order)

    def _pipeline_predictor_start(self, tokens: Tensor, step: Tensor | None = None) -> Tensor:
        token_order, _ = self.encoder.visible(self.encoder.num_blocks - 1, self.block_order(step))
        return self.predictor.embed(self._project(tokens), token_order)

    def _pipeline_loss(self, tokens: Tensor, images: Tensor, weights: Tensor, step: Tensor | None = None) -> Tensor:
        features = self._by_block(self.predictor.norm(tokens))
        losses = self._head_losses(features, images, self.block_order(step))
        return mean_over_images(torch.stack(losses).mean(dim=0), weights)

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the images, and their blocks after the first as predicted, in the targets' own mean and variance."""
        images = batch["images"]
        squares = to_squares(images, self.block_pixels)
        predictions = self.predict_blocks(images, self.encoder.num_blocks - 1, batch.get("sample_seeds")).float()
        undone = normalize_squares(squares[:, 1:]).undo(predictions)
        predicted = torch.cat([squares[:, :1], undone.to(squares.dtype)], dim=1)
        return {"target": images, "prediction": from_squares(predicted, self.block_pixels, images.shape[-1])}
