"""The augmentations of fine-tuning on top of crop and flip, timm's: RandAugment, random erasing, mixup and cutmix.

timm draws from the global generators of Python, numpy and torch. Here all draws are from the seed of the sample, so
that they depend on no worker and no process, and the global generators are left as they were. Pretraining uses none of
this.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment, rand_augment_transform
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from arvis_scale.data.keyed_random import keyed_seeds
from arvis_scale.models.normalization import IMAGENET_MEAN

# At magnitude 10 timm's posterizing keeps no bit of a color, which newer versions of Pillow refuse.
MAX_MAGNITUDE = 10 - 1e-6


class _Draw(IntEnum):
    """What a sample's seed is used for, so that no two uses share their random numbers."""

    RAND_AUGMENT = 1
    ERASE = 2
    MIX = 3


@dataclass(frozen=True)
class Mixing:
    """Mixup and cutmix of pairs of images; one of the two where both are on, with equal probability."""

    num_classes: int
    # Parameters of the Beta distributions of the shares; 0: off.
    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    # Probability that a pair is mixed at all.
    probability: float = 1.0
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        if self.mixup_alpha < 0 or self.cutmix_alpha < 0 or self.mixup_alpha == self.cutmix_alpha == 0:
            raise ValueError(
                f"mixup_alpha={self.mixup_alpha} and cutmix_alpha={self.cutmix_alpha}: one must be above 0, none below"
            )


def rand_augment(image: Image.Image, sample_seed: int, policy: str = "rand-m9-mstd0.5-inc1") -> Image.Image:
    """Return `image` after RandAugment; `policy` is in timm's notation.

    Source: Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search space" (2020).
    """
    with _draws_from(sample_seed, _Draw.RAND_AUGMENT):
        return _rand_augment(policy, min(image.size))(image)


def rand_augmented(
    data: bytes, *, sample_seed: int, view: Callable[..., npt.NDArray[np.uint8]], policy: str
) -> npt.NDArray[np.uint8]:
    """Return what RandAugment makes of the view that `view(data, sample_seed=...)` gives, 3 x H x W uint8."""
    pixels = np.ascontiguousarray(view(data, sample_seed=sample_seed).transpose(1, 2, 0))  # H x W x 3
    return np.asarray(rand_augment(Image.fromarray(pixels), sample_seed, policy)).transpose(2, 0, 1)


def erase(images: Tensor, sample_seeds: Tensor, probability: float = 0.25) -> Tensor:
    """Fill a rectangle of each normalized image, `B x 3 x H x W`, with noise in place, at `probability`; return them.

    Source: Zhong et al., "Random erasing data augmentation" (2017).
    """
    erasing = RandomErasing(probability, mode="pixel", device="cpu")
    for image, seed in zip(images, sample_seeds.tolist(), strict=True):
        with _draws_from(seed, _Draw.ERASE):
            erasing(image)
    return images


def mix(images: Tensor, labels: Tensor, sample_seeds: Tensor, mixing: Mixing) -> tuple[Tensor, Tensor]:
    """Mix images 2i and 2i + 1, `B x 3 x H x W` floats, in place; return them and the labels, `B x num_classes`.

    Neighbors in the stream are in one micro batch whatever the processes, as long as its size is even; so the pairs,
    and with the seed of the first of each all draws, depend on the stream alone. Raises `ValueError` for an odd batch.
    Source: Zhang et al., "mixup: beyond empirical risk minimization" (2018); Yun et al., "CutMix" (2019).
    """
    if len(images) % 2:
        raise ValueError(f"micro_batch_size={len(images)} is odd; mixup and cutmix mix pairs, take an even one")
    mixup = Mixup(
        mixing.mixup_alpha,
        mixing.cutmix_alpha,
        prob=mixing.probability,
        label_smoothing=mixing.label_smoothing,
        num_classes=mixing.num_classes,
    )
    targets = []
    for first, seed in zip(range(0, len(images), 2), sample_seeds[::2].tolist(), strict=True):
        pair = slice(first, first + 2)
        with _draws_from(seed, _Draw.MIX):
            _, target = mixup(images[pair], labels[pair])
        targets.append(target)
    return images, torch.cat(targets)


@lru_cache
def _rand_augment(policy: str, side: int) -> RandAugment:
    fill = tuple(round(255 * channel) for channel in IMAGENET_MEAN)
    options = {"translate_const": int(0.45 * side), "img_mean": fill}
    if "mmax" not in policy:
        options["magnitude_max"] = MAX_MAGNITUDE
    return rand_augment_transform(policy, options)


@contextmanager
def _draws_from(sample_seed: int, draw: _Draw) -> Iterator[None]:
    """Make the global generators of the processor draw from the seed; they are as before afterwards."""
    seed = int(keyed_seeds(sample_seed, np.array([draw]))[0])
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])
