"""AIM (arXiv 2401.08541): raster-order prediction of the next patch of pixels, with prefix attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arvis_scale.models import draws, initialization
from arvis_scale.models.encoder import Encoder
from arvis_scale.models.masks import prefix_mask
from arvis_scale.models.objective import Objective, mean_over_images, sample_seeds_of
from arvis_scale.models.pipeline import Step, block_steps
from arvis_scale.models.pixels import NormalizedSquares, from_squares, normalize_squares, to_squares
from arvis_scale.models.presets import EncoderSize
from arvis_scale.models.vit import Mlp, layer_norm


class ResidualMlp(nn.Module):
    """Pre-norm residual MLP without biases, per token."""

    def __init__(
        self,
        *,
        width: int,  # channels
        hidden: int,  # hidden channels
    ) -> None:
        super().__init__()
        self.norm = layer_norm(width)
        self.mlp = Mlp(width=width, hidden=hidden, output=width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`B x N x W` -> `B x N x W`."""
        return x + self.mlp(self.norm(x))


class PixelHead(nn.Module):
    """AIM's head: a linear map, residual MLPs, a norm and a linear map to the pixels of a patch.

    The pretraining code of the paper is not released; residual, pre-norm and the linear maps are our reading.
    """

    def __init__(
        self,
        *,
        trunk_width: int,  # input channels
        width: int,  # channels of the residual stream
        depth: int,  # residual MLPs
        expansion: int,  # hidden channels of an MLP as a multiple of width
        num_values: int,  # pixel values of a patch
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(trunk_width, width)
        self.blocks = nn.ModuleList(ResidualMlp(width=width, hidden=expansion * width) for _ in range(depth))
        self.norm = layer_norm(width)
        self.proj = nn.Linear(width, num_values)

    def forward(self, tokens: Tensor) -> Tensor:
        """`B x N x D` -> `B x N x num_values`."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.answer(x)

    def answer(self, x: Tensor) -> Tensor:
        """Return the pixels that the last residual MLP's output says, `B x N x width` -> `B x N x num_values`."""
        return self.proj(self.norm(x))


class Aim(Objective):
    """Mean squared error, after the prefix, between what patch i predicts and the normalised pixels of patch i + 1."""

    encoder: Encoder

    def __init__(
        self,
        *,
        size: EncoderSize,  # of the trunk
        image_size: int,  # side of the image in pixels
        patch_size: int,  # side of a patch in pixels
        head_width: int,  # channels of the pixel head
        head_depth: int,  # residual MLPs of the pixel head
        head_expansion: int,  # hidden channels of a head MLP as a multiple of head_width
    ) -> None:
        super().__init__()
        self.encoder = Encoder(size=size, image_size=image_size, patch_size=patch_size, patch_norm=True, bias=False)
        if self.encoder.num_patches < 2:
            raise ValueError(f"patch_size={patch_size} makes the image one patch, which leaves nothing to predict")
        self.patch_size = patch_size
        self.head = PixelHead(
            trunk_width=size.width,
            width=head_width,
            depth=head_depth,
            expansion=head_expansion,
            num_values=3 * patch_size**2,
        )
        self.apply(initialization.truncated_normal)

    def prefix_length(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the patches in the prefix of each image, `B`: `batch["prefix_length"]`, else uniform on 1 .. N-1."""
        if "prefix_length" in batch:
            return batch["prefix_length"]
        return draws.prefix_lengths(sample_seeds_of(batch, "prefix lengths"), self.encoder.num_patches)

    def predict_patches(self, images: Tensor, prefix_length: Tensor) -> Tensor:
        """Return what patches 0 .. N-2 say of their successors, `B x (N-1) x 3*p*p`.

        Inside the prefix a prediction has seen its own target; only those from place `prefix_length - 1` on count.
        """
        [tokens] = self.encoder(images, mask=prefix_mask(prefix_length, self.encoder.num_patches))  # B x N x D
        return self.head(self._head_input(tokens))

    def image_losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of each image, the mean over its patches after the prefix, `B`; there are no parts."""
        images, prefix_length = batch["images"], self.prefix_length(batch)
        return self._losses(self.predict_patches(images, prefix_length), images, prefix_length), {}

    def _head_input(self, tokens: Tensor) -> Tensor:
        """Return what the head reads of the trunk's tokens, those of the last patch left out, `B x (N-1) x D`."""
        # The paper adds positions to the input of the head too.
        tokens = self.encoder.norm(tokens) + self.encoder.pos_embed.to(tokens.dtype)
        return tokens[:, :-1]

    def _losses(self, predictions: Tensor, images: Tensor, prefix_length: Tensor) -> Tensor:
        targets = self._targets(to_squares(images, self.patch_size)).values
        per_patch = (predictions.float() - targets).square().mean(dim=2)  # B x (N-1)
        counts = self._after_prefix(prefix_length)
        return (per_patch * counts).sum(dim=1) / counts.sum(dim=1)

    def pipeline_steps(self) -> list[Step]:
        """Return the computation of `forward`, a transformer layer or a residual MLP a step."""
        depth = self.encoder.depth
        return [
            Step(
                "trunk_0",
                ("images",),
                tuple(f"encoder.{part}" for part in self.encoder.embedding_parts),
                lambda model, images: model.encoder.embed(images),
            ),
            *block_steps(
                "trunk", "encoder.blocks", depth, reads=("sample_seeds",), arguments=Aim._pipeline_layer_arguments
            ),
            Step(
                "head_0", (f"trunk_{depth}",), ("encoder.norm", "encoder.pos_embed", "head.embed"), Aim._pipeline_head
            ),
            *block_steps("head", "head.blocks", len(self.head.blocks), arguments=lambda model, layer: ()),
            Step(
                "loss",
                (f"head_{len(self.head.blocks)}", "images", "sample_seeds", "weights"),
                ("head.norm", "head.proj"),
                Aim._pipeline_loss,
            ),
        ]

    def _pipeline_layer_arguments(self, layer: int, sample_seeds: Tensor) -> tuple[Tensor]:
        # Lengths are drawn again in every layer: sending masks along would cost more.
        prefix_length = self.prefix_length({"sample_seeds": sample_seeds})
        return (prefix_mask(prefix_length, self.encoder.num_patches),)

    def _pipeline_head(self, tokens: Tensor) -> Tensor:
        return self.head.embed(self._head_input(tokens))

    def _pipeline_loss(self, x: Tensor, images: Tensor, sample_seeds: Tensor, weights: Tensor) -> Tensor:
        prefix_length = self.prefix_length({"sample_seeds": sample_seeds})
        return mean_over_images(self._losses(self.head.answer(x), images, prefix_length), weights)

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the images, and their patches after the prefix as predicted, in the targets' own mean and variance."""
        images, prefix_length = batch["images"], self.prefix_length(batch)
        squares = to_squares(images, self.patch_size)
        undone = self._targets(squares).undo(self.predict_patches(images, prefix_length).float())
        shown = torch.where(self._after_prefix(prefix_length)[:, :, None], undone.to(squares.dtype), squares[:, 1:])
        predicted = torch.cat([squares[:, :1], shown], dim=1)
        return {"target": images, "prediction": from_squares(predicted, self.patch_size, images.shape[-1])}

    def _targets(self, squares: Tensor) -> NormalizedSquares:
        return normalize_squares(squares[:, 1:])

    def _after_prefix(self, prefix_length: Tensor) -> Tensor:
        """Return which of the patches 1 .. N-1 lie after the prefix, bool, `B x (N-1)`."""
        patch = torch.arange(1, self.encoder.num_patches, device=prefix_length.device)
        return patch[None] >= prefix_length[:, None]
