"""RandAugment, erasing, mixup and cutmix are functions of the samples' seeds."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from arvis_scale.data.finetune_augment import Mixing, erase, mix, rand_augment

SEEDS = torch.arange(100, 108)
LABELS = torch.arange(8) % 5


def _images() -> Tensor:
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def _photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def _global_states() -> tuple[object, list[int], list[int]]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_rand_augment_is_a_function_of_the_seed() -> None:
    seen = [np.asarray(rand_augment(_photo(), seed)).tobytes() for seed in range(20)]
    again = [np.asarray(rand_augment(_photo(), seed)).tobytes() for seed in reversed(range(20))]
    assert again == seen[::-1]
    assert len(set(seen)) > 10


def test_rand_augment_takes_every_draw() -> None:
    for seed in range(300):  # several reach the largest magnitude
        assert rand_augment(_photo(), seed, "rand-m10-mstd0.5-inc1").size == (32, 32)


def test_the_global_generators_are_left_alone() -> None:
    before = _global_states()
    rand_augment(_photo(), 0)
    erase(_images(), SEEDS, probability=1.0)
    mix(_images(), LABELS, SEEDS, Mixing(num_classes=5))
    assert _global_states() == before


def test_erasing_depends_on_no_batch() -> None:
    whole = erase(_images(), SEEDS, probability=0.5)
    alone = torch.cat([erase(_images()[i : i + 1], SEEDS[i : i + 1], probability=0.5) for i in range(8)])
    assert torch.equal(whole, alone)
    changed = [not torch.equal(image, before) for image, before in zip(whole, _images(), strict=True)]
    assert 0 < sum(changed) < 8


def test_erasing_is_as_probable_as_it_is_said_to_be() -> None:
    images = torch.zeros(400, 3, 16, 16)
    erased = erase(images, torch.arange(400), probability=0.25).flatten(1).any(dim=1)
    assert 0.18 < erased.float().mean() < 0.32


@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
@pytest.mark.parametrize("micro_batch_size", [2, 4])
def test_mixing_depends_on_no_micro_batch(alphas: tuple[float, float], micro_batch_size: int) -> None:
    mixing = Mixing(num_classes=5, mixup_alpha=alphas[0], cutmix_alpha=alphas[1])
    images, targets = mix(_images(), LABELS, SEEDS, mixing)
    parts = [slice(first, first + micro_batch_size) for first in range(0, 8, micro_batch_size)]
    mixed = [mix(_images()[part], LABELS[part], SEEDS[part], mixing) for part in parts]
    assert torch.equal(torch.cat([part[0] for part in mixed]), images)
    assert torch.equal(torch.cat([part[1] for part in mixed]), targets)


def test_labels_are_mixed_in_the_shares_of_the_pixels() -> None:
    constant = torch.arange(8.0)[:, None, None, None].expand(8, 3, 16, 16).clone()
    mixing = Mixing(num_classes=8, cutmix_alpha=0.5, label_smoothing=0.0)
    images, targets = mix(constant, torch.arange(8), SEEDS, mixing)
    torch.testing.assert_close(images.mean(dim=(1, 2, 3)), targets @ torch.arange(8.0))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))
    assert (targets.amax(dim=1) < 1).sum() >= 4


def test_an_odd_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="micro_batch_size=7 is odd"):
        mix(_images()[:7], LABELS[:7], SEEDS[:7], Mixing(num_classes=5))


def test_mixing_without_either_is_refused() -> None:
    with pytest.raises(ValueError, match="one must be above 0"):
        Mixing(num_classes=5, mixup_alpha=0.0, cutmix_alpha=0.0)
