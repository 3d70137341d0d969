"""Pictures show the masks that the encoders use and what the models predict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from arvis_scale.models.build import OBJECTIVES, build_objective
from arvis_scale.models.digpt import Digpt
from arvis_scale.models.objective import Objective
from arvis_scale.models.pictures import (
    MAY_ATTEND,
    MAY_NOT_ATTEND,
    attention_mask,
    cosine_maps,
    enlarged,
    heat,
    mask_pictures,
    prediction_pictures,
    visible,
)

MakeBatch = Callable[..., dict[str, Tensor]]
TEACHER = (4, 12)  # grid, width
OPTIONS: dict[str, dict[str, Any]] = {
    "xtra": {"options": {"block_side": 2, "drop_path": 0.0}},
    "aim": {},
    "digpt": {"options": {"segment_side": 2}, "teacher_width": TEACHER[1], "teacher_grid": TEACHER[0]},
    "igpt": {"options": {"resolution": 4, "palette_size": 8}},
    "mae": {},
}


def build(name: str) -> Objective:
    torch.manual_seed(0)
    return build_objective(name, preset="nano", image_size=16, patch_size=4, **OPTIONS[name])


@pytest.fixture
def batch(make_batch: MakeBatch) -> dict[str, Tensor]:
    return make_batch(teacher=TEACHER)


def test_mask_of_xtra_lets_a_patch_see_its_own_and_earlier_blocks() -> None:
    allowed = attention_mask(build("xtra")).in_raster_order()
    block = [2 * (patch // 4 // 2) + patch % 4 // 2 for patch in range(16)]
    assert allowed.tolist() == [[block[key] <= block[query] for key in range(16)] for query in range(16)]


def test_mask_of_igpt_lets_a_place_see_itself_and_earlier_ones() -> None:
    assert torch.equal(attention_mask(build("igpt")).allowed, torch.ones(16, 16, dtype=torch.bool).tril())


def test_mask_of_aim_is_full_in_the_prefix_and_causal_after() -> None:
    model = build("aim")
    prefix = int(model.prefix_length({"sample_seeds": torch.tensor([3])}))
    allowed = attention_mask(model, sample_seed=3).allowed
    assert allowed.tolist() == [[key <= query or key < prefix for key in range(16)] for query in range(16)]


def test_mask_of_mae_joins_the_visible_patches_and_the_class_token() -> None:
    model = build("mae")
    seen = model.visible_patches({"sample_seeds": torch.tensor([0])})[0].tolist()
    allowed = attention_mask(model).in_raster_order()
    assert allowed.nonzero().unique().tolist() == sorted([*seen, 16])
    assert allowed.sum() == 5 * 5


def test_mask_of_digpt_leaves_out_the_last_segment_and_shows_the_class_token_to_its_segment_only() -> None:
    model = build("digpt")
    order = model.segment_order({"sample_seeds": torch.tensor([0])})[0]
    allowed = attention_mask(model).in_raster_order()
    assert allowed.shape == (17, 17)
    last, hidden = (model.student_segments[order[place]].tolist() for place in (2, 3))
    assert not allowed[hidden].any() and not allowed[:, hidden].any()
    assert allowed[16].nonzero().flatten().tolist() == [patch for patch in range(17) if patch not in hidden]
    assert allowed[:, 16].nonzero().flatten().tolist() == sorted([*last, 16])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_mask_pictures_show_every_entry_of_the_mask_as_a_square(name: str) -> None:
    model = build(name)
    mask = attention_mask(model)
    pictures = mask_pictures(model)
    raster = pictures.pop("attention_mask/raster")
    shown = mask.in_raster_order()
    factor = raster.shape[-1] // len(shown)
    assert raster.shape == (3, factor * len(shown), factor * len(shown)) and raster.shape[-1] >= 256
    colors = raster[:, ::factor, ::factor].permute(1, 2, 0)  # n x n x 3
    assert torch.equal((colors == torch.tensor(MAY_ATTEND)).all(dim=-1), shown)
    assert torch.equal((colors == torch.tensor(MAY_NOT_ATTEND)).all(dim=-1), ~shown)
    assert bool(pictures) == (not torch.equal(shown, mask.allowed))


@pytest.mark.parametrize("name", ["xtra", "aim", "mae"])
def test_reconstruction_shows_the_images_above_what_is_predicted(name: str, batch: dict[str, Tensor]) -> None:
    model = build(name).eval()
    pictures = prediction_pictures(model, batch)
    assert list(pictures) == ["reconstruction"]
    picture = pictures["reconstruction"]
    assert picture.shape == (3, 2 * 66 + 2, 4 * 66 + 2)
    tiles = picture[:, 2:, 2:].unfold(1, 64, 66).unfold(2, 64, 66)[..., ::4, ::4]  # 3 x 2 x 4 x 16 x 16
    reconstruction = model.reconstruct(batch)
    for row, part in enumerate(("target", "prediction")):
        torch.testing.assert_close(tiles[:, row].transpose(0, 1), visible(reconstruction[part]))


def test_igpt_shows_samples_too(batch: dict[str, Tensor]) -> None:
    pictures = prediction_pictures(build("igpt").eval(), batch)
    assert list(pictures) == ["reconstruction", "samples"]
    assert pictures["samples"].shape == (3, 68, 4 * 66 + 2)


def test_cosine_maps_are_one_where_the_teacher_says_what_the_decoder_predicts(batch: dict[str, Tensor]) -> None:
    model = build("digpt").eval()
    assert isinstance(model, Digpt)
    order = model.segment_order(batch)
    predicted = model.predict_tokens(batch["images"], order, batch["sample_seeds"])
    for name, answered in (("generative", order[:, 1:]), ("discriminative", order[:, :-1])):
        index = model.teacher_segments[answered].flatten(1)
        tokens = torch.zeros_like(batch["teacher_tokens"])
        tokens[:, 1:].scatter_(1, index[:, :, None].expand(-1, -1, TEACHER[1]), predicted[name][:, :-1].detach())
        maps = cosine_maps(model, {**batch, "teacher_tokens": tokens})[name].flatten(1)
        torch.testing.assert_close(maps.gather(1, index), torch.ones(4, 12))
        assert maps.isnan().sum(dim=1).tolist() == [4] * 4


def test_cosine_maps_are_those_of_the_loss(batch: dict[str, Tensor]) -> None:
    model = build("digpt").eval()
    assert isinstance(model, Digpt)
    _, parts = model.image_losses(batch)
    predicted = model.predict_tokens(batch["images"], model.segment_order(batch), batch["sample_seeds"])
    for name, maps in cosine_maps(model, batch).items():
        class_cosine = torch.cosine_similarity(predicted[name][:, -1], batch["teacher_tokens"][:, 0])
        mean = (maps.flatten(1).nansum(dim=1) + class_cosine) / 13
        torch.testing.assert_close(2 - 2 * mean, parts[f"{name}_loss"])


def test_digpt_shows_images_and_a_map_for_every_decoder(batch: dict[str, Tensor]) -> None:
    pictures = prediction_pictures(build("digpt").eval(), batch)
    assert list(pictures) == ["cosine_similarity"]
    assert pictures["cosine_similarity"].shape == (3, 3 * 66 + 2, 4 * 66 + 2)


def test_heat_is_gray_where_there_is_no_value_and_brighter_for_more() -> None:
    colors = heat(torch.tensor([[[0.0, 0.5], [1.0, float("nan")]]]), 4)
    assert colors.shape == (1, 3, 4, 4)
    brightness = colors.mean(dim=1)[0, ::2, ::2]
    assert brightness[0, 0] < brightness[0, 1] < brightness[1, 0]
    assert colors[0, :, 3, 3].tolist() == [0.25] * 3


def test_large_images_are_not_enlarged() -> None:
    images = torch.rand(1, 3, 70, 70)
    assert torch.equal(enlarged(images, 64), images)
