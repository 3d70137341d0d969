"""Crops and flips."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from arvis_scale.data.augment import evaluation_view, training_view

WHOLE = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}


@pytest.fixture
def gradient() -> Image.Image:
    """A square picture whose red grows to the right and green downwards."""
    ramp = np.arange(64, dtype=np.uint8) * 4
    pixels = np.stack([np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.zeros((64, 64), np.uint8)], -1)
    return Image.fromarray(pixels)


def test_a_view_is_a_function_of_its_seed(gradient: Image.Image) -> None:
    def view(seed: int) -> np.ndarray:
        return training_view(
            gradient, seed, image_size=16, crop_scale=(0.3, 1), crop_ratio=(0.75, 1.5), horizontal_flip=0.5
        )

    assert view(1).shape == (3, 16, 16) and view(1).dtype == np.uint8
    assert np.array_equal(view(1), view(1))
    assert not np.array_equal(view(1), view(2))


def test_flip_probability_is_kept_and_zero_never_flips(gradient: Image.Image) -> None:
    def share_flipped(probability: float) -> float:
        views = [
            training_view(gradient, seed, image_size=8, horizontal_flip=probability, **WHOLE) for seed in range(400)
        ]
        return float(np.mean([view[0, 0, 0] > view[0, 0, -1] for view in views]))

    assert share_flipped(0.0) == 0.0
    assert share_flipped(1.0) == 1.0
    assert 0.4 < share_flipped(0.5) < 0.6


def test_crops_keep_to_scale_and_ratio(gradient: Image.Image) -> None:
    for seed in range(200):
        view = training_view(
            gradient, seed, image_size=64, crop_scale=(0.25, 0.5), crop_ratio=(0.5, 2.0), horizontal_flip=0.0
        ).astype(float)
        # The gradient shows the crop's width and height in source pixels, 4 levels a pixel.
        width = (view[0].max() - view[0].min()) / 4 + 1
        height = (view[1].max() - view[1].min()) / 4 + 1
        assert 0.2 <= width * height / 64**2 <= 0.55
        assert 0.44 <= width / height <= 2.3


def test_an_image_too_long_for_the_ratio_gets_a_centred_crop() -> None:
    image = Image.new("RGB", (1000, 2), (10, 20, 30))
    view = training_view(image, 0, image_size=8, crop_scale=(0.9, 1.0), crop_ratio=(0.75, 1.5), horizontal_flip=0.5)
    assert (view == np.array([10, 20, 30])[:, None, None]).all()


def test_evaluation_takes_the_centred_square(gradient: Image.Image) -> None:
    wide = Image.new("RGB", (128, 64), (255, 255, 255))
    wide.paste(gradient, (32, 0))
    assert np.array_equal(evaluation_view(wide, 64), np.asarray(gradient).transpose(2, 0, 1))
    assert evaluation_view(wide, 16).shape == (3, 16, 16)
