"""Fast decoding is near to exact decoding on photographs, and the same on everything else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from arvis_scale.config.data import DataConfig
from arvis_scale.data.augment import View, random_view
from arvis_scale.data.decode import UnreadableImageError
from arvis_scale.data.views import decode_view, evaluation_view, training_view

RECIPE = {"crop_scale": (0.3, 1.0), "crop_ratio": (0.75, 1.5), "horizontal_flip": 0.5}


def _photograph(number: int, width: int, height: int) -> Image.Image:
    """Part of one of scikit-learn's two photographs, mirrored at its edges, at about its own scale."""
    original = load_sample_images().images[number % 2]
    tall, wide, _ = original.shape
    original = np.pad(original, ((tall, tall), (wide, wide), (0, 0)), mode="symmetric")
    generator = np.random.default_rng(number)
    zoom = generator.uniform(1.0, 1.5)
    across, down = round(width / zoom), round(height / zoom)
    left, top = generator.integers(original.shape[1] - across + 1), generator.integers(original.shape[0] - down + 1)
    part = Image.fromarray(original[top : top + down, left : left + across])
    return part.resize((width, height), Image.Resampling.BICUBIC)


def _encoded(image: Image.Image, image_format: str = "JPEG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=image_format, **({"quality": 90} | options))
    return buffer.getvalue()


def _decibels(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio, at most 99."""
    square = ((first.astype(np.float64) - second) ** 2).mean()
    return float(min(99.0, 10 * np.log10(255**2 / max(square, 1e-12))))


def _both(data: bytes, seed: int, image_size: int = 224) -> list[npt.NDArray[np.uint8]]:
    """The view of a seed, decoded fast and exactly."""
    view = partial(training_view, data, sample_seed=seed, image_size=image_size, **RECIPE)
    return [view(decoding="fast"), view(decoding="exact")]


@pytest.fixture(scope="module")
def photograph() -> bytes:
    return _encoded(_photograph(0, 500, 375))


def test_500_crops_of_photographs_are_near_to_the_exact_ones() -> None:
    """Of all ratios of image to view; most at small views, which are the same and take less time."""
    large, small = (((1600, 1200), 224), ((500, 375), 224)), (((500, 375), 96), ((640, 480), 96), ((450, 600), 64))
    cases = [large[0], large[1], *small * 4]
    files = [_encoded(_photograph(number, *size)) for number, (size, _) in enumerate(cases)]
    quality = []
    for seed in range(500):
        case = seed % len(cases)
        quality.append(_decibels(*_both(files[case], seed, cases[case][1])))
    assert np.mean(quality) >= 40
    assert min(quality) >= 35


def test_crops_between_the_pixels_of_a_smaller_image_are_not_shifted() -> None:
    """A shift of half a decoded pixel would cost 20 dB."""
    data = _encoded(_photograph(1, 1200, 1200))
    for offset in range(8):
        view = View((40 + offset, 80 - offset, 1090 + offset, 1120 - offset), flip=bool(offset % 2))
        pixels = [decode_view(data, lambda *size, view=view: view, 96, decoding=name) for name in ("fast", "exact")]
        assert _decibels(*pixels) >= 35


def test_at_its_own_size_a_photograph_is_the_same_to_the_bit(photograph: bytes) -> None:
    view = View((31, 17, 31 + 224, 17 + 224), flip=True)
    fast, exact = [decode_view(photograph, lambda *size: view, 224, decoding=name) for name in ("fast", "exact")]
    assert np.array_equal(fast, exact)


@pytest.mark.parametrize("size", [(500, 375), (1600, 1200), (375, 501), (227, 224)])
def test_evaluation_views_are_near_to_the_exact_ones(size: tuple[int, int]) -> None:
    view = partial(evaluation_view, _encoded(_photograph(0, *size)), sample_seed=0, image_size=224)
    assert _decibels(view(decoding="fast"), view(decoding="exact")) >= 35


@pytest.mark.parametrize(
    ("image_format", "mode", "options"),
    [
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {}),
        ("PNG", "L", {}),
        ("PNG", "P", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "I;16", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGB", {"save_all": True}),  # an animation
    ],
)
def test_what_is_no_plain_jpeg_is_decoded_exactly(image_format: str, mode: str, options: dict[str, Any]) -> None:
    image = _photograph(0, 300, 240)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    if "save_all" in options:
        options = {**options, "append_images": [image.rotate(180)]}
    fast, exact = _both(_encoded(image, image_format, **options), seed=3)
    assert np.array_equal(fast, exact)


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (96, 96), (127, 128)])
def test_small_jpegs_are_decoded_exactly(size: tuple[int, int]) -> None:
    data = _encoded(_photograph(0, *size))
    for seed in range(10):
        fast, exact = _both(data, seed, image_size=32)
        assert np.array_equal(fast, exact)


@pytest.mark.parametrize(
    "encode",
    [
        lambda image: _encoded(image.convert("L")),
        partial(_encoded, progressive=True),
        partial(_encoded, subsampling="4:4:4"),
        partial(_encoded, subsampling="4:2:2"),
        partial(_encoded, keep_rgb=True),
        partial(_encoded, restart_marker_rows=1),
    ],
    ids=["grey", "progressive", "444", "422", "rgb", "restart"],
)
def test_all_kinds_of_jpeg_are_near_to_the_exact_ones(encode: Callable[[Image.Image], bytes]) -> None:
    data = encode(_photograph(0, 1000, 750))
    for seed in range(4):
        assert _decibels(*_both(data, seed, image_size=96)) >= 35


def test_neither_turns_an_image_by_its_exif_orientation() -> None:
    image = _photograph(1, 500, 375)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned = _encoded(image, exif=exif.tobytes())
    for seed in range(4):
        for tagged, plain in zip(_both(turned, seed), _both(_encoded(image), seed), strict=True):
            assert np.array_equal(tagged, plain)


def test_views_are_flipped_where_the_exact_ones_are(photograph: bytes) -> None:
    seeds = {random_view(500, 375, sample_seed=seed, **RECIPE).flip: seed for seed in range(10)}
    for seed in seeds.values():
        fast, exact = _both(photograph, seed)
        assert _decibels(fast, exact) > _decibels(fast[:, :, ::-1], exact) + 20
    assert len(seeds) == 2


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_cut_jpeg_is_unreadable_in_both(options: dict[str, Any]) -> None:
    whole = _encoded(_photograph(0, 500, 375), **options)
    for length in [*range(0, len(whole), len(whole) // 40), len(whole) - 24]:
        reasons = []
        for decoding in ("fast", "exact"):
            with pytest.raises(UnreadableImageError) as caught:
                evaluation_view(whole[:length], sample_seed=0, image_size=224, decoding=decoding)
            reasons.append((caught.value.reason, str(caught.value)))
        assert reasons[0] == reasons[1]


def test_damage_within_a_jpeg_is_met_alike(photograph: bytes) -> None:
    """What the decoders notice of it is left to Pillow, with whatever it makes of it."""
    for seed in range(20):
        generator = np.random.default_rng(seed)
        damaged = bytearray(photograph)
        for place in generator.integers(len(damaged) // 8, len(damaged), 30).tolist():
            damaged[place] = int(generator.integers(256))
        outcomes = [_outcome(bytes(damaged), decoding) for decoding in ("fast", "exact")]
        if isinstance(outcomes[1], str):
            assert outcomes[0] == outcomes[1]
        else:
            assert _decibels(*outcomes) >= 35


def _outcome(data: bytes, decoding: str) -> npt.NDArray[np.uint8] | str:
    try:
        return evaluation_view(data, sample_seed=0, image_size=224, decoding=decoding)
    except UnreadableImageError as error:
        return str(error)


@pytest.mark.parametrize("decoding", ["fast", "exact"])
def test_a_bomb_is_refused_by_its_header(photograph: bytes, decoding: str) -> None:
    frame = photograph.index(b"\xff\xc0")  # marker, length, precision, height, width
    side = (30_000).to_bytes(2, "big")
    bomb = photograph[: frame + 5] + side + side + photograph[frame + 9 :]
    with pytest.raises(UnreadableImageError, match="900000000 pixels") as caught:
        evaluation_view(bomb, sample_seed=0, image_size=224, decoding=decoding)
    assert caught.value.reason == "too_large"


def test_an_unknown_decoding_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.decoding='slow'"):
        DataConfig(shards="shards", decoding="slow").validate()
