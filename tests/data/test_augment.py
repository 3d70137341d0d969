"""Crops and flips."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from arvis_scale.data.augment import View, random_view
from arvis_scale.data.views import evaluation_view, training_view

RECIPE = {"crop_scale": (0.3, 1.0), "crop_ratio": (0.75, 1.5), "horizontal_flip": 0.5}
WHOLE = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}


@pytest.fixture
def gradient() -> Image.Image:
    """A square picture whose red grows to the right and green downwards."""
    ramp = np.arange(64, dtype=np.uint8) * 4
    pixels = np.stack([np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.zeros((64, 64), np.uint8)], -1)
    return Image.fromarray(pixels)


def _seen(image: Image.Image, seed: int, **choices: Any) -> npt.NDArray[np.uint8]:
    return training_view(_png(image), sample_seed=seed, decoding="exact", **{**RECIPE, **choices})


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def test_a_view_is_a_function_of_its_seed(gradient: Image.Image) -> None:
    view = partial(_seen, gradient, image_size=16)
    assert view(1).shape == (3, 16, 16) and view(1).dtype == np.uint8
    assert np.array_equal(view(1), view(1))
    assert not np.array_equal(view(1), view(2))


def test_seeds_draw_the_views_that_they_always_drew() -> None:
    """Loss curves, stored tokens and resumed runs rest on these."""
    drawn = [random_view(500, 375, sample_seed=seed, **RECIPE) for seed in (0, 1, 2)]
    assert drawn == [
        View((8, 11, 224, 296), flip=False),
        View((58, 23, 481, 315), flip=True),
        View((73, 32, 362, 345), flip=False),
    ]


def test_flip_probability_is_kept_and_zero_never_flips(gradient: Image.Image) -> None:
    def share_flipped(probability: float) -> float:
        choices = {**WHOLE, "image_size": 8, "horizontal_flip": probability}
        views = [_seen(gradient, seed, **choices) for seed in range(400)]
        return float(np.mean([view[0, 0, 0] > view[0, 0, -1] for view in views]))

    assert share_flipped(0.0) == 0.0
    assert share_flipped(1.0) == 1.0
    assert 0.4 < share_flipped(0.5) < 0.6


def test_crops_keep_to_scale_and_ratio(gradient: Image.Image) -> None:
    choices = {"image_size": 64, "crop_scale": (0.25, 0.5), "crop_ratio": (0.5, 2.0), "horizontal_flip": 0.0}
    for seed in range(200):
        view = _seen(gradient, seed, **choices).astype(float)
        # The gradient shows the crop's width and height in source pixels, 4 levels a pixel.
        width = (view[0].max() - view[0].min()) / 4 + 1
        height = (view[1].max() - view[1].min()) / 4 + 1
        assert 0.2 <= width * height / 64**2 <= 0.55
        assert 0.44 <= width / height <= 2.3


def test_an_image_too_long_for_the_ratio_gets_a_centered_crop() -> None:
    view = random_view(1000, 2, sample_seed=0, **{**RECIPE, "crop_scale": (0.9, 1.0)})
    assert view.box == (498, 0, 501, 2)


def test_evaluation_takes_the_centered_square(gradient: Image.Image) -> None:
    wide = Image.new("RGB", (128, 64), (255, 255, 255))
    wide.paste(gradient, (32, 0))
    view = partial(evaluation_view, _png(wide), sample_seed=0, decoding="exact")
    assert np.array_equal(view(image_size=64), np.asarray(gradient).transpose(2, 0, 1))
    assert view(image_size=16).shape == (3, 16, 16)
