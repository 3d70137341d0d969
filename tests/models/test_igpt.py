"""iGPT: colors by the nearest of a palette, causality, features of a middle layer, samples."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from arvis_scale.models.build import build_objective
from arvis_scale.models.igpt import Igpt
from arvis_scale.models.images import denormalize, normalize_fractions
from arvis_scale.models.palette import colors_to_images, nearest_colors, uniform_palette

MakeBatch = Callable[..., dict[str, Tensor]]
NUM_PIXELS, NUM_COLORS = 16, 27


@pytest.fixture
def model(perturb: Callable[..., None]) -> Igpt:
    torch.manual_seed(0)
    options = {"resolution": 4, "palette_size": NUM_COLORS}
    objective = build_objective("igpt", preset="nano", image_size=16, patch_size=4, options=options)
    assert isinstance(objective, Igpt)
    perturb(objective, std=0.1)
    return objective.eval()


def test_every_pixel_becomes_the_nearest_color_of_the_palette() -> None:
    generator = torch.Generator().manual_seed(0)
    images, palette = torch.rand(2, 3, 6, 6, generator=generator), 2 * torch.rand(40, 3, generator=generator) - 1
    got = nearest_colors(normalize_fractions(images), palette, 6)
    for image, colors in zip(images, got, strict=True):
        for place, color in enumerate(colors.tolist()):
            pixel = 2 * image[:, place // 6, place % 6] - 1
            distances = [(pixel - row).square().sum().item() for row in palette]
            assert distances[color] == pytest.approx(min(distances), abs=1e-6)


def test_pixels_of_a_reduced_image_are_means_of_areas() -> None:
    images = torch.zeros(1, 3, 4, 4)
    images[0, 0, :2, :2] = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # mean red 0.5
    palette = torch.tensor([[-1.0, -1.0, -1.0], [0.0, -1.0, -1.0], [1.0, -1.0, -1.0]])
    assert nearest_colors(normalize_fractions(images), palette, 2).tolist() == [[1, 0, 0, 0]]


def test_a_color_that_the_palette_holds_twice_is_its_first() -> None:
    palette = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0], [-1.0, -1.0, -1.0]])
    black = normalize_fractions(torch.zeros(1, 3, 2, 2))
    assert nearest_colors(black, palette, 2).tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize("num_colors", [2, 10, 27, 512])
def test_uniform_palette_has_different_colors_from_black_to_white(num_colors: int) -> None:
    palette = uniform_palette(num_colors)
    assert len({tuple(color) for color in palette.tolist()}) == num_colors
    assert palette[0].tolist() == [-1, -1, -1] and palette[-1].tolist() == [1, 1, 1]


def test_colors_and_images_are_each_others_inverse() -> None:
    colors = torch.randint(NUM_COLORS, (2, 16), generator=torch.Generator().manual_seed(0))
    palette = uniform_palette(NUM_COLORS)
    images = colors_to_images(colors, palette, 8)
    assert images.shape == (2, 3, 8, 8)
    assert torch.equal(nearest_colors(images, palette, 4), colors)
    # Red, green, blue of the pixel in row 1, column 2.
    torch.testing.assert_close(denormalize(images)[0, :, 2, 4], (palette[colors[0, 6]] + 1) / 2)


@pytest.mark.parametrize("changed", [0, 7, NUM_PIXELS - 2])
def test_a_pixel_changes_no_prediction_up_to_its_own(model: Igpt, changed: int) -> None:
    colors = torch.randint(NUM_COLORS, (1, NUM_PIXELS - 1), generator=torch.Generator().manual_seed(0))
    other = colors.clone()
    other[0, changed] = (other[0, changed] + 1) % NUM_COLORS
    moved = (model.predict_colors(colors) != model.predict_colors(other)).any(dim=2)[0]
    assert moved.tolist() == [place > changed for place in range(NUM_PIXELS)]


def test_predictions_from_the_first_pixels_alone_are_those_of_the_whole(model: Igpt) -> None:
    colors = torch.randint(NUM_COLORS, (2, NUM_PIXELS - 1), generator=torch.Generator().manual_seed(0))
    whole = model.predict_colors(colors)
    for num in (0, 1, 9):
        torch.testing.assert_close(model.predict_colors(colors[:, :num]), whole[:, : num + 1])


def test_loss_of_a_model_that_knows_nothing_is_that_of_guessing(model: Igpt, make_batch: MakeBatch) -> None:
    torch.nn.init.zeros_(model.head.weight)
    loss, _ = model(make_batch())
    torch.testing.assert_close(loss, torch.tensor(float(NUM_COLORS)).log())


def test_features_pass_the_norm_that_reads_their_layer(model: Igpt) -> None:
    assert model.encoder.feature_norm(1) is model.encoder.blocks[1].norm1
    assert model.encoder.feature_norm(2) is model.encoder.norm


def test_palette_belongs_to_the_encoder_and_is_saved_with_it(model: Igpt) -> None:
    model.encoder.set_palette(torch.linspace(-1, 1, NUM_COLORS)[:, None].expand(-1, 3))
    again = build_objective(
        "igpt", preset="nano", image_size=16, patch_size=4, options={"resolution": 4, "palette_size": NUM_COLORS}
    )
    again.encoder.load_state_dict(model.encoder.state_dict())
    assert torch.equal(again.encoder.palette, model.encoder.palette)
    assert "palette" not in dict(model.encoder.named_parameters())


def test_samples_follow_the_generator_and_the_model(model: Igpt) -> None:
    samples = [model.sample(3, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert samples[0].shape == (3, 3, 16, 16)
    assert torch.equal(samples[0], samples[1]) and not torch.equal(samples[0], samples[2])
    # A head that is sure of one color draws nothing else.
    with torch.no_grad():
        model.head.weight.zero_()
        model.encoder.norm.weight.zero_()
        model.encoder.norm.bias.fill_(1.0)
        model.head.weight[5] = 100.0
    colors = model.encoder.quantize(model.sample(2, torch.Generator().manual_seed(0)))
    assert (colors == 5).all()


def test_reconstruction_shows_the_likeliest_color_of_each_pixel(model: Igpt, make_batch: MakeBatch) -> None:
    batch = make_batch()
    pictures = model.reconstruct(batch)
    colors = model.encoder.quantize(batch["images"])
    assert torch.equal(model.encoder.quantize(pictures["target"]), colors)
    likely = model.predict_colors(colors[:, :-1]).argmax(dim=2)
    assert torch.equal(model.encoder.quantize(pictures["prediction"]), likely)


def test_projections_into_the_residual_stream_start_smaller() -> None:
    torch.manual_seed(0)
    model = build_objective("igpt", preset="mini", image_size=8, patch_size=1, options={"resolution": 8})
    block = model.encoder.blocks[0]
    for layer, std in ((block.attn.qkv, 0.02), (block.attn.proj, 0.02 / 12**0.5), (block.mlp.fc2, 0.02 / 12**0.5)):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.03)
    assert model.encoder.token_embed.weight.std().item() == pytest.approx(0.02, rel=0.03)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"resolution": 32}, "resolution=32 must lie between 2 and image_size=16"),
        ({"resolution": 1}, "resolution=1 must lie between 2"),
        ({"resolution": 4, "palette_size": 513}, "palette_size=513 must lie between 2 and 512"),
        ({"resolution": 4, "palette_size": 1}, "palette_size=1 must lie between 2 and 512"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_objective("igpt", preset="nano", image_size=16, patch_size=4, options=options)
