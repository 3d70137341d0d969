"""MAE: what is masked, who sees whom, and where the loss is taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from arvis_scale.models.build import build_objective
from arvis_scale.models.mae import Mae
from arvis_scale.models.pixels import to_squares

MakeBatch = Callable[..., dict[str, Tensor]]
NUM_PATCHES = 16


@pytest.fixture
def model(perturb: Callable[..., None]) -> Mae:
    torch.manual_seed(0)
    objective = build_objective("mae", preset="nano", image_size=16, patch_size=4)
    assert isinstance(objective, Mae)
    perturb(objective, std=0.1)
    return objective


def masked(model: Mae, batch: dict[str, Tensor]) -> list[list[bool]]:
    return [[patch not in row for patch in range(NUM_PATCHES)] for row in model.visible_patches(batch).tolist()]


def test_three_quarters_are_masked_at_random_in_each_image(model: Mae, make_batch: MakeBatch) -> None:
    visible = model.visible_patches(make_batch(num_images=400))
    assert visible.shape == (400, 4)
    assert all(len(set(row)) == 4 for row in visible.tolist())
    # Each patch is visible in a quarter of the images; 400 draws have a standard deviation of 8.7.
    counts = torch.bincount(visible.flatten(), minlength=NUM_PATCHES)
    assert counts.sum() == 1600 and counts.min() > 65 and counts.max() < 135


def test_masks_belong_to_the_images_and_not_to_the_batch(model: Mae, make_batch: MakeBatch) -> None:
    batch = make_batch(num_images=6)
    order = torch.tensor([4, 1, 5])
    part = {key: value[order] for key, value in batch.items()}
    assert torch.equal(model.visible_patches(part), model.visible_patches(batch)[order])
    torch.testing.assert_close(model.image_losses(part)[0], model.image_losses(batch)[0][order])


def test_visible_patches_alone_are_seen(model: Mae, make_batch: MakeBatch) -> None:
    batch = make_batch(num_images=1)
    images = batch["images"].requires_grad_()
    visible = model.visible_patches(batch)
    predictions = model.predict_patches(images, visible)
    for patch in range(NUM_PATCHES):
        [gradient] = torch.autograd.grad(predictions[0, patch].square().sum(), images, retain_graph=True)
        seen = to_squares(gradient, 4)[0].abs().sum(dim=1) > 0
        assert seen.tolist() == [not hidden for hidden in masked(model, batch)[0]]


def test_loss_is_taken_on_masked_patches_alone(model: Mae, make_batch: MakeBatch) -> None:
    batch = make_batch()
    predictions = model.predict_patches(batch["images"], model.visible_patches(batch)).requires_grad_()
    squares = to_squares(batch["images"], 4)
    targets = (squares - squares.mean(-1, keepdim=True)) / (squares.var(-1, keepdim=True) + 1e-6).sqrt()
    errors = (predictions - targets).square().mean(dim=2)
    expected = torch.stack(
        [row[torch.tensor(hidden)].mean() for row, hidden in zip(errors, masked(model, batch), strict=True)]
    )
    torch.testing.assert_close(model.image_losses(batch)[0], expected)


def test_order_of_the_visible_patches_does_not_matter(model: Mae, make_batch: MakeBatch) -> None:
    images = make_batch()["images"]
    visible = torch.tensor([[3, 9, 0, 12]] * 4)
    shuffled = model.predict_patches(images, visible[:, [2, 0, 3, 1]])
    torch.testing.assert_close(model.predict_patches(images, visible), shuffled, atol=1e-5, rtol=1e-5)


def test_every_patch_sees_every_patch_at_transfer(model: Mae, make_batch: MakeBatch) -> None:
    images = make_batch(num_images=1)["images"].requires_grad_()
    [tokens] = model.encoder.layer_outputs(images, [2])
    assert tokens.shape == (1, NUM_PATCHES, 32)
    [gradient] = torch.autograd.grad(tokens[0, 0].square().sum(), images, retain_graph=True)
    assert (to_squares(gradient, 4)[0].abs().sum(dim=1) > 0).all()
    [gradient] = torch.autograd.grad(tokens.square().sum(), model.encoder.cls_token)
    assert gradient.abs().max() > 0


def test_reconstruction_keeps_what_is_visible_and_pastes_predictions(model: Mae, make_batch: MakeBatch) -> None:
    batch = make_batch()
    pictures = model.reconstruct(batch)
    target, prediction = to_squares(pictures["target"], 4), to_squares(pictures["prediction"], 4)
    assert (target != prediction).any(dim=2).tolist() == masked(model, batch)
    scaled = (prediction - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    expected = model.predict_patches(batch["images"], model.visible_patches(batch))
    hidden = torch.tensor(masked(model, batch))
    torch.testing.assert_close(scaled[hidden], expected[hidden], atol=1e-4, rtol=1e-4)


def test_decoder_of_b_and_above_is_the_published_one() -> None:
    for preset, patch_size in (("B", 16), ("L", 16), ("H", 14)):
        with torch.device("meta"):
            model = build_objective("mae", preset=preset, image_size=224, patch_size=patch_size)
        assert isinstance(model, Mae)
        blocks = model.decoder.blocks
        assert len(blocks) == 8
        assert (blocks[0].attn.num_heads, blocks[0].attn.qkv.in_features) == (16, 512)
        assert model.num_visible == model.encoder.num_patches // 4


def test_masks_need_seeds(model: Mae, make_batch: MakeBatch) -> None:
    with pytest.raises(ValueError, match=r"masked patches are drawn from batch\[\"sample_seeds\"\]"):
        model({"images": make_batch()["images"]})


@pytest.mark.parametrize(("ratio", "left"), [(0.0, 16), (0.95, 0), (1.0, 0), (-0.5, 24)])
def test_a_ratio_that_masks_nothing_or_everything_is_refused(ratio: float, left: int) -> None:
    with pytest.raises(ValueError, match=f"mask_ratio={ratio} leaves {left} of 16 patches visible"):
        build_objective("mae", preset="nano", image_size=16, patch_size=4, options={"mask_ratio": ratio})
