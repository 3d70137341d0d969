"""MAE (arXiv 2111.06377): masked patches predicted from the visible ones, the contrast to autoregression."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arvis_scale.models import draws, initialization
from arvis_scale.models.encoder import Encoder
from arvis_scale.models.objective import Objective, mean_over_images, sample_seeds_of
from arvis_scale.models.pipeline import Step, block_steps
from arvis_scale.models.pixels import from_squares, normalize_squares, to_squares
from arvis_scale.models.positions import sincos_positions
from arvis_scale.models.presets import EncoderSize
from arvis_scale.models.vit import Block, layer_norm


class MaskedDecoder(nn.Module):
    """Transformer over all patches: the encoder's tokens where they are visible, a learned mask token elsewhere."""

    pos_embed: Tensor  # 1 x N x P

    def __init__(
        self,
        *,
        encoder_width: int,  # channels of the encoder
        width: int,  # channels
        depth: int,  # layers
        num_heads: int,  # divides width
        grid: int,  # patches per side of the image
        num_values: int,  # pixel values of a patch
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos_embed", sincos_positions(width, grid)[None], persistent=False)
        self.blocks = nn.ModuleList(Block(width=width, num_heads=num_heads, mlp_hidden=4 * width) for _ in range(depth))
        self.norm = layer_norm(width)
        self.proj = nn.Linear(width, num_values)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Visible patches and the class token, `B x (n + 1) x D` -> all patches in raster order, `B x N x num_values`.

        `visible`: raster numbers of the visible patches, int64, `B x n`.
        """
        x = self.fill_in(tokens, visible)
        for block in self.blocks:
            x = block(x)
        return self.answer(x)

    def fill_in(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return what the first layer reads, `B x (N + 1) x P`: all patches in raster order, then the class token."""
        x = self.embed(tokens)  # B x (n + 1) x P
        index = visible[:, :, None].expand(-1, -1, x.shape[2])
        patches = self.mask_token.expand(x.shape[0], self.pos_embed.shape[1], -1).scatter(1, index, x[:, :-1])
        # The position of the class token is zero.
        return torch.cat([patches + self.pos_embed.to(x.dtype), x[:, -1:]], dim=1)

    def answer(self, x: Tensor) -> Tensor:
        """Return the prediction from the last layer's output, `B x (N + 1) x P` -> `B x N x num_values`."""
        return self.proj(self.norm(x)[:, :-1])


class Mae(Objective):
    """Mean squared error between predicted and normalized pixels of the masked patches."""

    encoder: Encoder

    def __init__(
        self,
        *,
        size: EncoderSize,  # of the encoder
        image_size: int,  # side of the image in pixels
        patch_size: int,  # side of a patch in pixels
        mask_ratio: float,  # fraction of the patches that is masked
        decoder_width: int,  # channels of the decoder
        decoder_depth: int,  # layers of the decoder
        decoder_heads: int,  # attention heads of the decoder
    ) -> None:
        super().__init__()
        self.encoder = Encoder(size=size, image_size=image_size, patch_size=patch_size, class_token=True)
        self.patch_size = patch_size
        # As released: the visible patches are rounded down.
        self.num_visible = int(self.encoder.num_patches * (1 - mask_ratio))
        if not 1 <= self.num_visible < self.encoder.num_patches:
            raise ValueError(
                f"mask_ratio={mask_ratio} leaves {self.num_visible} of {self.encoder.num_patches} patches visible; "
                "at least one must be visible and one masked"
            )
        self.decoder = MaskedDecoder(
            encoder_width=size.width,
            width=decoder_width,
            depth=decoder_depth,
            num_heads=decoder_heads,
            grid=self.encoder.grid,
            num_values=3 * patch_size**2,
        )
        self.apply(initialization.xavier_uniform)

    def visible_patches(self, batch: dict[str, Tensor]) -> Tensor:
        """Return raster numbers of the visible patches, int64, `B x n`: `batch["visible_patches"]`, else random."""
        if "visible_patches" in batch:
            return batch["visible_patches"]
        seeds = sample_seeds_of(batch, "masked patches")
        return draws.patch_orders(seeds, self.encoder.num_patches)[:, : self.num_visible]

    def predict_patches(self, images: Tensor, visible: Tensor) -> Tensor:
        """Return what the model says of every patch, having seen the `visible` ones, `B x N x 3*p*p`."""
        [tokens] = self.encoder(images, token_order=visible)  # B x (n + 1) x D
        return self.decoder(self.encoder.norm(tokens), visible)

    def image_losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of each image, the mean over its masked patches, `B`; there are no parts."""
        images, visible = batch["images"], self.visible_patches(batch)
        return self._losses(self.predict_patches(images, visible), images, visible), {}

    def _losses(self, predictions: Tensor, images: Tensor, visible: Tensor) -> Tensor:
        targets = normalize_squares(to_squares(images, self.patch_size)).values  # B x N x 3*p*p
        per_patch = (predictions.float() - targets).square().mean(dim=2)  # B x N
        masked = self._masked(visible)
        return (per_patch * masked).sum(dim=1) / masked.sum(dim=1)

    def pipeline_steps(self) -> list[Step]:
        """Return the computation of `forward`, a transformer layer a step."""
        embedding = tuple(f"encoder.{part}" for part in self.encoder.embedding_parts)
        filling = tuple(f"decoder.{part}" for part in ("embed", "mask_token", "pos_embed"))
        trunk, decoder = f"trunk_{self.encoder.depth}", f"decoder_{len(self.decoder.blocks)}"
        return [
            Step("trunk_0", ("images", "sample_seeds"), embedding, Mae._pipeline_start),
            *block_steps("trunk", "encoder.blocks", self.encoder.depth, arguments=lambda model, layer: ()),
            Step("decoder_0", (trunk, "sample_seeds"), ("encoder.norm", *filling), Mae._pipeline_decoder),
            *block_steps("decoder", "decoder.blocks", len(self.decoder.blocks), arguments=lambda model, layer: ()),
            Step(
                "loss",
                (decoder, "images", "sample_seeds", "weights"),
                ("decoder.norm", "decoder.proj"),
                Mae._pipeline_loss,
            ),
        ]

    def _pipeline_start(self, images: Tensor, sample_seeds: Tensor) -> Tensor:
        return self.encoder.embed(images, self.visible_patches({"sample_seeds": sample_seeds}))

    def _pipeline_decoder(self, tokens: Tensor, sample_seeds: Tensor) -> Tensor:
        # Visible patches are drawn again wherever they are needed: cheaper than sending them along.
        return self.decoder.fill_in(self.encoder.norm(tokens), self.visible_patches({"sample_seeds": sample_seeds}))

    def _pipeline_loss(self, x: Tensor, images: Tensor, sample_seeds: Tensor, weights: Tensor) -> Tensor:
        visible = self.visible_patches({"sample_seeds": sample_seeds})
        return mean_over_images(self._losses(self.decoder.answer(x), images, visible), weights)

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the images, and their masked patches as predicted, in the targets' own mean and variance."""
        images, visible = batch["images"], self.visible_patches(batch)
        squares = to_squares(images, self.patch_size)
        undone = normalize_squares(squares).undo(self.predict_patches(images, visible).float())
        shown = torch.where(self._masked(visible)[:, :, None], undone.to(squares.dtype), squares)
        return {"target": images, "prediction": from_squares(shown, self.patch_size, images.shape[-1])}

    def _masked(self, visible: Tensor) -> Tensor:
        """Return which patches are masked, bool, `B x N`."""
        masked = torch.ones(visible.shape[0], self.encoder.num_patches, dtype=torch.bool, device=visible.device)
        return masked.scatter(1, visible, False)
