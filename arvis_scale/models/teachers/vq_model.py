"""A small vector-quantised autoencoder (VQ-VAE, arXiv 1711.00937) with one code per patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arvis_scale.models.vit import PatchConv

_COMMITMENT = 0.25  # weight of the commitment loss, as in the paper
_DECAY = 0.99  # of the moving averages of the codebook
# A code that the moving average says fewer patches of a batch use than this is put elsewhere.
_MIN_USE = 0.1


@dataclass(frozen=True)
class VqSize:
    """Shape of the autoencoder; all of it stands in the tokenizer's vq_config.json."""

    # Side of the image, and of a patch, in pixels.
    image_size: int
    patch_size: int
    # Entries of the codebook, and their channels: those of a token.
    num_codes: int = 512
    code_width: int = 32
    # Channels of the convolutions, and residual blocks on either side of the codebook.
    width: int = 64
    depth: int = 2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name}={value} of the VQ tokenizer must be at least 1")
        if self.image_size % self.patch_size:
            raise ValueError(f"patch_size={self.patch_size} does not divide image_size={self.image_size}; change one")

    @property
    def grid(self) -> int:
        """Codes per side of the image."""
        return self.image_size // self.patch_size


class Quantized(NamedTuple):
    """What the codebook makes of the encoder's outputs."""

    vectors: Tensor  # B x C x g x g: the nearest codes
    numbers: Tensor  # B x g x g


class ResidualConv(nn.Module):
    """Pre-activation residual block of two convolutions between neighbouring patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(width, width, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """`B x W x g x g` -> `B x W x g x g`."""
        return x + self.conv2(F.gelu(self.conv1(F.gelu(x))))


class Codebook(nn.Module):
    """Codes that follow the encoder's outputs by moving averages (arXiv 1711.00937, appendix A.1)."""

    codes: Tensor  # K x C
    counts: Tensor  # K: moving average of the patches of a batch that a code is nearest to
    sums: Tensor  # K x C: moving average of the sum of their vectors

    def __init__(self, num_codes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(num_codes, width))
        self.register_buffer("counts", torch.zeros(num_codes), persistent=False)
        self.register_buffer("sums", torch.zeros(num_codes, width), persistent=False)

    def forward(self, encoded: Tensor) -> Quantized:
        """Return the nearest code of every patch, `B x C x g x g`."""
        vectors = encoded.permute(0, 2, 3, 1)  # B x g x g x C
        index = torch.cdist(vectors.flatten(0, 2).float(), self.codes.float()).argmin(dim=1)
        index = index.view(vectors.shape[:3])
        return Quantized(self.codes[index].permute(0, 3, 1, 2), index)

    @torch.no_grad()
    def start(self, encoded: Tensor, generator: torch.Generator) -> None:
        """Put the codes on randomly chosen vectors of a first batch."""
        self.codes.copy_(_some_vectors(encoded, len(self.codes), generator))
        self.counts.fill_(1.0)
        self.sums.copy_(self.codes)

    @torch.no_grad()
    def follow(self, encoded: Tensor, index: Tensor, generator: torch.Generator) -> None:
        """Move every code towards the mean of its vectors; unused codes go where vectors are (arXiv 2005.00341)."""
        vectors = encoded.permute(0, 2, 3, 1).flatten(0, 2)  # n x C
        chosen = F.one_hot(index.flatten(), len(self.codes)).to(vectors.dtype)  # n x K
        self.counts.lerp_(chosen.sum(dim=0), 1 - _DECAY)
        self.sums.lerp_(chosen.T @ vectors, 1 - _DECAY)
        unused = self.counts < _MIN_USE
        elsewhere = _some_vectors(encoded, len(self.codes), generator)
        self.counts.masked_fill_(unused, 1.0)
        self.sums.copy_(torch.where(unused[:, None], elsewhere, self.sums))
        self.codes.copy_(self.sums / self.counts[:, None])


def _some_vectors(encoded: Tensor, num: int, generator: torch.Generator) -> Tensor:
    vectors = encoded.permute(0, 2, 3, 1).flatten(0, 2)
    chosen = torch.randint(len(vectors), (num,), generator=generator)
    return vectors[chosen.to(vectors.device)]


class VqAutoencoder(nn.Module):
    """Encoder, codebook, decoder; images are ImageNet-normalised."""

    def __init__(self, size: VqSize) -> None:
        super().__init__()
        self.size = size
        blocks = [ResidualConv(size.width) for _ in range(2 * size.depth)]
        self.encoder = nn.Sequential(
            PatchConv(3, size.width, kernel_size=size.patch_size, stride=size.patch_size),
            *blocks[: size.depth],
            nn.Conv2d(size.width, size.code_width, kernel_size=1),
        )
        self.codebook = Codebook(size.num_codes, size.code_width)
        self.decoder = nn.Sequential(
            nn.Conv2d(size.code_width, size.width, kernel_size=1),
            *blocks[size.depth :],
            nn.ConvTranspose2d(size.width, 3, kernel_size=size.patch_size, stride=size.patch_size),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Quantized]:
        """`B x 3 x H x W` -> loss, squared error per pixel value (both scalars), encoder output, its codes."""
        encoded = self.encoder(images)  # B x C x g x g
        quantized = self.codebook(encoded)
        # Straight-through: the decoder sees the codes, the encoder gets their gradient.
        decoded = self.decoder(encoded + (quantized.vectors - encoded).detach())
        error = F.mse_loss(decoded, images)
        return error + _COMMITMENT * F.mse_loss(encoded, quantized.vectors), error, encoded, quantized
