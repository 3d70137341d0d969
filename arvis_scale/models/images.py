"""Images between the wire (uint8) and the models (float, ImageNet-normalised)."""

from __future__ import annotations

import torch
from torch import Tensor

from arvis_scale.models.normalization import IMAGENET_MEAN, IMAGENET_STD


def normalize(images: Tensor) -> Tensor:
    """Return `B x 3 x H x W` uint8 images as float32 with ImageNet's statistics, on their device."""
    mean, std = _statistics(images.device)
    # One copy, then in place: on a CPU new memory costs more than the arithmetic. Rounds as `normalize_fractions` does.
    return images.to(torch.float32, copy=True).div_(255.0).sub_(mean).div_(std)


def normalize_fractions(images: Tensor) -> Tensor:
    """Return `B x 3 x H x W` images of pixel values in 0..1 with ImageNet's statistics; undone by `denormalize`."""
    mean, std = _statistics(images.device)
    return (images - mean) / std


def denormalize(images: Tensor) -> Tensor:
    """Return ImageNet-normalised images, `B x 3 x H x W`, as pixel values where black is 0 and white is 1."""
    mean, std = _statistics(images.device)
    return images.float() * std + mean


def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    mean = torch.tensor(IMAGENET_MEAN, device=device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=device).view(3, 1, 1)
    return mean, std
