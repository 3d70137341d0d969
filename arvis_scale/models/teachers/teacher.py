"""The interface of every teacher: images in ImageNet statistics in, semantic tokens out, without gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from arvis_scale.models.normalization import IMAGENET_MEAN, IMAGENET_STD


class TeacherShape(NamedTuple):
    """Channels of a token, and patch tokens per side of the image."""

    width: int
    grid: int


class Teacher:
    """Maps images to semantic tokens.

    No `nn.Module` and no part of the objective: it is not trained, not saved, not seen by the optimizer, and not
    partitioned by ZeRO, which would gather a teacher of ViT-H size in every step.
    """

    def __init__(
        self,
        shape: TeacherShape,
        *,
        image_size: int,  # side in pixels of the images that `tokens` takes; others are resized
        mean: Sequence[float] = IMAGENET_MEAN,  # statistics per channel that `tokens` takes
        std: Sequence[float] = IMAGENET_STD,
        device: torch.device | str = "cpu",
    ) -> None:
        self.width, self.grid = shape
        self.image_size = image_size
        # (x * std + mean) undoes ImageNet's statistics; the teacher may have its own.
        own_mean, own_std = torch.tensor(mean), torch.tensor(std)
        self._scale = (torch.tensor(IMAGENET_STD) / own_std).view(3, 1, 1).to(device)
        self._shift = ((torch.tensor(IMAGENET_MEAN) - own_mean) / own_std).view(3, 1, 1).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """ImageNet-normalised `B x 3 x H x W` -> `B x (1 + grid*grid) x width`, class token first, no gradient.

        Images of another size are resized to the teacher's (bicubic, antialiased).
        """
        with torch.inference_mode():
            images = images.float() * self._scale + self._shift
            if images.shape[-2:] != (self.image_size, self.image_size):
                size = (self.image_size, self.image_size)
                images = F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)
            tokens = self.tokens(images)
        # Autograd refuses to save inference tensors; a copy made outside is an ordinary tensor.
        return tokens.clone()

    def tokens(self, images: Tensor) -> Tensor:
        """Images `B x 3 x image_size x image_size` in the teacher's statistics -> `B x (1 + grid*grid) x width`."""
        raise NotImplementedError


def with_mean_token(patch_tokens: Tensor) -> Tensor:
    """Put the mean patch token in front, for a teacher without a class token: `B x n x C` -> `B x (1+n) x C`."""
    return torch.cat([patch_tokens.mean(dim=1, keepdim=True), patch_tokens], dim=1)
