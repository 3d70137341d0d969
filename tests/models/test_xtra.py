"""XTRA: causality, layout and limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from arvis_scale.models.build import build_objective
from arvis_scale.models.masks import block_order
from arvis_scale.models.pixels import to_squares
from arvis_scale.models.xtra import Xtra

MakeBatch = Callable[..., dict[str, Tensor]]
Build = Callable[..., Xtra]


@pytest.fixture
def build(perturb: Callable[..., None]) -> Build:
    """Return a maker of nano models for 16-pixel images."""

    def make(block_side: int = 2, image_size: int = 16, **options: Any) -> Xtra:
        model = build_objective(
            "xtra",
            preset="nano",
            image_size=image_size,
            patch_size=4,
            options={"block_side": block_side, "drop_path": 0.0, **options},
        )
        assert isinstance(model, Xtra)
        perturb(model)
        return model

    return make


def paint(images: Tensor, block: int, side: int) -> Tensor:
    """Return images in which one block (side in pixels) is replaced by noise."""
    per_side = images.shape[-1] // side
    row, column = (part * side for part in divmod(block, per_side))
    painted = images.clone()
    painted[:, :, row : row + side, column : column + side] += torch.randn(3, side, side)
    return painted


@pytest.mark.parametrize("block_side", [1, 2])
def test_a_block_changes_its_own_and_later_predictions_only(
    build: Build, make_batch: MakeBatch, block_side: int
) -> None:
    model, images = build(block_side), make_batch(num_images=1)["images"]
    num_blocks = model.encoder.num_blocks
    with torch.no_grad():
        before = model.predict_blocks(images, num_blocks)
        for block in range(num_blocks):
            after = model.predict_blocks(paint(images, block, 4 * block_side), num_blocks)
            moved = (after != before).flatten(2).any(dim=2)[0].tolist()
            assert moved == [other >= block for other in range(num_blocks)]


def test_predictions_of_the_first_blocks_do_not_need_the_others(build: Build, make_batch: MakeBatch) -> None:
    model, images = build(), make_batch()["images"]
    torch.testing.assert_close(model.predict_blocks(images, 3), model.predict_blocks(images, 4)[:, :3])


def test_block_layout_gives_the_result_of_raster_layout_with_the_mask_of_the_definition(
    build: Build, make_batch: MakeBatch
) -> None:
    model, images = build(image_size=24), make_batch(image_size=24)["images"]
    encoder = model.encoder
    block = torch.empty(36, dtype=torch.int64)
    block[block_order(6, 2)] = torch.arange(9).repeat_interleave(4)
    raster_mask = block[:, None] >= block[None, :]
    in_raster = encoder(images, layers=[1, 2], mask=raster_mask)
    in_blocks = encoder.layer_outputs(images, [1, 2])
    for expected, got in zip(in_raster, in_blocks, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-5)


def test_loss_is_that_of_each_block_against_its_successors_pixels(build: Build, make_batch: MakeBatch) -> None:
    model, batch = build(), make_batch()
    losses, _ = model.image_losses(batch)
    squares = to_squares(batch["images"], 8)
    normalized = (squares - squares.mean(-1, keepdim=True)) / (squares.var(-1, keepdim=True) + 1e-6).sqrt()
    predictions = model.predict_blocks(batch["images"], 4)
    expected = [(predictions[:, block] - normalized[:, block + 1]).square().mean(1) for block in range(3)]
    torch.testing.assert_close(losses, torch.stack(expected).mean(0))


def test_reconstruction_keeps_the_first_block_and_undoes_the_normalisation(build: Build, make_batch: MakeBatch) -> None:
    model, batch = build(), make_batch()
    pictures = model.reconstruct(batch)
    assert torch.equal(pictures["target"], batch["images"])
    target, prediction = to_squares(batch["images"], 8), to_squares(pictures["prediction"], 8)
    assert torch.equal(prediction[:, 0], target[:, 0])
    scaled = (prediction - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(scaled[:, 1:], model.predict_blocks(batch["images"], 3), atol=1e-4, rtol=1e-4)


def test_stochastic_depth_needs_seeds_in_training_and_none_in_evaluation(build: Build, make_batch: MakeBatch) -> None:
    model, batch = build(drop_path=0.5), make_batch()
    del batch["sample_seeds"]
    with pytest.raises(ValueError, match="sample_seeds"):
        model.train()(batch)
    assert model.eval()(batch)[0].isfinite()


def test_stochastic_depth_drops_a_branch_whole_or_scales_it(build: Build, make_batch: MakeBatch) -> None:
    model = build(drop_path=0.5).train()
    layer = model.encoder.blocks[1]
    assert model.encoder.blocks[0].drop_path == 0 and layer.drop_path == 0.5
    x, seeds = torch.randn(64, 3, 32), torch.arange(64)
    attended = layer.attn(layer.norm1(x))
    candidates = [x, x + 2 * attended]
    candidates = [y + factor * layer.mlp(layer.norm2(y)) for y in candidates for factor in (0, 2)]
    out = layer(x, sample_seeds=seeds)
    distance = torch.stack([(out - candidate).abs().amax(dim=(1, 2)) for candidate in candidates])
    assert (distance.min(dim=0).values < 1e-4).all()
    assert set(distance.argmin(dim=0).tolist()) == {0, 1, 2, 3}
