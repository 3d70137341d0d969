"""iGPT (Chen et al., "Generative Pretraining from Pixels", ICML 2020): the colors of a small image as a sequence.

Where the paper leaves the decoder open it is built of the same layers as every other model here (exact GELU, LayerNorm
eps 1e-6), initialized as GPT-2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arvis_scale.models import initialization
from arvis_scale.models.encoder import Backbone
from arvis_scale.models.objective import Objective, mean_over_images
from arvis_scale.models.palette import colors_to_images, nearest_colors, uniform_palette
from arvis_scale.models.pipeline import Step, block_steps
from arvis_scale.models.presets import EncoderSize
from arvis_scale.models.vit import Block, check_image_size, layer_norm


class PixelEncoder(Backbone):
    """Causal transformer over a start token and the palette colors of an image's pixels in raster order."""

    palette: Tensor  # K x 3

    def __init__(
        self,
        *,
        size: EncoderSize,  # width, depth, heads, MLP
        image_size: int,  # side of the image in pixels
        resolution: int,  # side of the image that is read, in pixels
        palette_size: int,  # colors
    ) -> None:
        super().__init__()
        if not 2 <= resolution <= image_size:
            raise ValueError(f"resolution={resolution} must lie between 2 and image_size={image_size}")
        self.width = size.width
        self.depth = size.depth
        self.image_size = image_size
        self.resolution = resolution
        self.num_pixels = resolution**2
        self.register_buffer("palette", uniform_palette(palette_size))
        self.token_embed = nn.Embedding(palette_size, size.width)
        self.start_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.num_pixels, size.width))
        self.blocks = nn.ModuleList(
            Block(width=size.width, num_heads=size.num_heads, mlp_hidden=size.mlp_hidden, causal=True)
            for _ in range(size.depth)
        )
        self.norm = layer_norm(size.width)

    def set_palette(self, palette: Tensor) -> None:
        """Take `palette` (`K x 3`, in -1..1) in place of the uniform one."""
        assert palette.shape == self.palette.shape, "as many colors as the embedding has rows"
        self.palette.copy_(palette)

    def quantize(self, images: Tensor) -> Tensor:
        """Return the colors of ImageNet-normalized images, `B x 3 x H x W` -> int64, `B x N`."""
        check_image_size(images, self.image_size)
        return nearest_colors(images, self.palette, self.resolution)

    def forward(self, colors: Tensor, *, layers: Sequence[int] | None = None) -> list[Tensor]:
        """Return the outputs of `layers` (counted from 1; None: the last), each `B x (n + 1) x D`, before any norm.

        `colors`: of the first n < N pixels, int64, `B x n`. Place i has seen the start token and pixels 0 .. i - 1.
        """
        return self.run_blocks(self.embed(colors), [self.depth] if layers is None else layers)

    def embed(self, colors: Tensor) -> Tensor:
        """Return what the first layer reads, `B x (n + 1) x D`; see `forward`."""
        start = self.start_token.expand(colors.shape[0], -1, -1)
        x = torch.cat([start, self.token_embed(colors)], dim=1)
        return x + self.pos_embed[:, : x.shape[1]]

    def layer_outputs(self, images: Tensor, layers: Sequence[int], sample_seeds: Tensor | None = None) -> list[Tensor]:
        """Return the tokens after each of `layers`, `B x N x D`: that of a pixel has seen the pixels before it."""
        return self(self.quantize(images)[:, :-1], layers=layers)

    def feature_norm(self, layer: int) -> nn.Module:
        """Return the LayerNorm that reads the tokens after `layer`, as the paper probes them (section 2.3)."""
        if layer == self.depth:
            return self.norm
        following = self.blocks[layer]
        assert isinstance(following, Block)
        return following.norm1


class Igpt(Objective):
    """Cross-entropy, in nats per pixel, of the color of each pixel given those before it."""

    encoder: PixelEncoder

    def __init__(
        self,
        *,
        size: EncoderSize,  # of the decoder
        image_size: int,  # side of the image in pixels
        resolution: int,  # side of the image that is modeled, in pixels
        palette_size: int,  # colors
    ) -> None:
        super().__init__()
        self.encoder = PixelEncoder(size=size, image_size=image_size, resolution=resolution, palette_size=palette_size)
        self.head = nn.Linear(size.width, palette_size, bias=False)
        initialization.gpt2(self, size.depth)

    def predict_colors(self, colors: Tensor) -> Tensor:
        """Return the logits of pixels 0 .. n given the colors of pixels 0 .. n - 1: `B x n` -> `B x (n + 1) x K`."""
        [tokens] = self.encoder(colors)
        return self._logits(tokens)

    def image_losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of each image, the mean over its pixels, `B`; there are no parts."""
        colors = self.encoder.quantize(batch["images"])  # B x N
        return self._losses(self.predict_colors(colors[:, :-1]), colors), {}

    def _logits(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder.norm(tokens))

    def _losses(self, logits: Tensor, colors: Tensor) -> Tensor:
        losses = F.cross_entropy(logits.float().flatten(0, 1), colors.flatten(), reduction="none")
        return losses.view(colors.shape).mean(dim=1)

    def pipeline_steps(self) -> list[Step]:
        """Return the computation of `forward`, a transformer layer a step."""
        embedding = ("palette", "token_embed", "start_token", "pos_embed")
        return [
            Step("trunk_0", ("images",), tuple(f"encoder.{part}" for part in embedding), Igpt._pipeline_start),
            *block_steps(
                "trunk",
                "encoder.blocks",
                self.encoder.depth,
                arguments=lambda model, layer: (),
            ),
            Step(
                "loss",
                (f"trunk_{self.encoder.depth}", "images", "weights"),
                ("encoder.palette", "encoder.norm", "head"),
                Igpt._pipeline_loss,
            ),
        ]

    def _pipeline_start(self, images: Tensor) -> Tensor:
        return self.encoder.embed(self.encoder.quantize(images)[:, :-1])

    def _pipeline_loss(self, tokens: Tensor, images: Tensor, weights: Tensor) -> Tensor:
        return mean_over_images(self._losses(self._logits(tokens), self.encoder.quantize(images)), weights)

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the images as the model reads them, and the most likely color of each pixel given those before it."""
        colors = self.encoder.quantize(batch["images"])
        likely = self.predict_colors(colors[:, :-1]).argmax(dim=2)
        return {"target": self._images(colors), "prediction": self._images(likely)}

    @torch.no_grad()
    def sample(self, num: int, generator: torch.Generator) -> Tensor:
        """Return `num` images drawn pixel by pixel, ImageNet-normalized, `num x 3 x image_size x image_size`.

        `generator` lives on the model's device. Every pixel costs a pass over those before it.
        """
        colors = torch.empty(num, 0, dtype=torch.int64, device=self.encoder.palette.device)
        for _ in range(self.encoder.num_pixels):
            logits = self.predict_colors(colors)[:, -1]
            drawn = torch.multinomial(logits.float().softmax(dim=1), 1, generator=generator)
            colors = torch.cat([colors, drawn], dim=1)
        return self._images(colors)

    def _images(self, colors: Tensor) -> Tensor:
        return colors_to_images(colors, self.encoder.palette, self.encoder.image_size)
