"""XTRA: causality, layout and limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from arvis_scale.models.build import build_objective
from arvis_scale.models.encoder import take_tokens
from arvis_scale.models.masks import block_order
from arvis_scale.models.pixels import from_squares, to_squares
from arvis_scale.models.presets import encoder_size
from arvis_scale.models.xtra import BlockCausalEncoder, Xtra

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
    # Matmuls of other shapes add up in another order, on some processors by 1.6e-5 where a prediction is 3.
    torch.testing.assert_close(
        model.predict_blocks(images, 3), model.predict_blocks(images, 4)[:, :3], atol=1e-5, rtol=1e-5
    )


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


@pytest.mark.parametrize("block_side", [1, 2, 4])
def test_one_patch_a_block_is_raster_causal_and_one_block_is_no_mask(block_side: int) -> None:
    torch.manual_seed(0)
    encoder = BlockCausalEncoder(
        size=encoder_size("nano"), image_size=16, patch_size=4, block_side=block_side, drop_path=0.0
    )
    images = torch.randn(2, 3, 16, 16)
    mask = {1: torch.ones(16, 16, dtype=torch.bool).tril(), 4: None}
    for limit in mask:
        [plain] = encoder(images, mask=mask[limit])
        [got] = encoder.layer_outputs(images, [2])
        assert torch.allclose(got, plain, atol=1e-5) == (limit == block_side)


def test_a_later_place_of_any_order_changes_no_earlier_prediction(build: Build, make_batch: MakeBatch) -> None:
    model, images = build(block_orders=4), make_batch(num_images=1)["images"]
    with torch.no_grad():
        for order in model.orders:
            before = model.block_features(images, 4, order=order)
            for place in range(4):
                after = model.block_features(paint(images, int(order[place]), 8), 4, order=order)
                moved = (after != before).any(dim=2)[0].tolist()
                assert moved == [other >= place for other in range(4)]


def test_an_order_moves_tokens_positions_and_targets_alike(build: Build, make_batch: MakeBatch) -> None:
    """The model whose blocks, of image and positions, are put in that order reads them in raster order."""
    ordered, raster, batch = build(block_orders=4), build(), make_batch()
    step = torch.tensor(next(step for step in range(9) if ordered.block_order(torch.tensor(step))[0] != 0))
    order = ordered.block_order(step)
    raster.load_state_dict(ordered.state_dict())
    patches = block_order(4, 2)
    moved = torch.empty_like(patches)
    moved[patches] = patches.view(4, 4)[order].flatten()  # raster number of the patch that comes to each place
    for module in (raster.encoder, raster.predictor):
        module.pos_embed.data = take_tokens(module.pos_embed.data, moved)
    images = from_squares(to_squares(batch["images"], 4)[:, moved], 4, 16)
    expected, _ = raster.image_losses({**batch, "images": images})
    got, _ = ordered.image_losses({**batch, "step": step})
    torch.testing.assert_close(got, expected)
    assert not torch.allclose(got, raster.image_losses(batch)[0])


def test_a_step_has_one_order_in_all_micro_batches(build: Build, make_batch: MakeBatch) -> None:
    model, batch = build(block_orders=4, drop_path=0.5).train(), make_batch(num_images=6)
    losses = []
    for step in (torch.tensor(number) for number in range(6)):
        whole, _ = model.image_losses({**batch, "step": step})
        parts = [
            {**{key: value[part] for key, value in batch.items()}, "step": step} for part in ([4, 1], [0, 5, 2, 3])
        ]
        torch.testing.assert_close(
            torch.cat([model.image_losses(part)[0] for part in parts]), whole[[4, 1, 0, 5, 2, 3]]
        )
        losses.append(whole.mean().item())
    assert len(set(losses)) > 2


def test_evaluation_reads_in_raster_order_and_training_needs_the_step(build: Build, make_batch: MakeBatch) -> None:
    several, batch = build(block_orders=4).eval(), make_batch()
    one = build()
    one.load_state_dict(several.state_dict())
    assert torch.equal(several({**batch, "step": torch.tensor(1)})[0], one(batch)[0])
    with pytest.raises(ValueError, match=r'block orders are drawn from batch\["step"\] in training mode'):
        several.train()(batch)


def test_heads_are_averaged_and_named(build: Build, make_batch: MakeBatch) -> None:
    model, batch = build(blocks_ahead=3), make_batch()
    losses, parts = model.image_losses(batch)
    assert list(parts) == ["ahead_1_loss", "ahead_2_loss", "ahead_3_loss"]
    torch.testing.assert_close(losses, torch.stack(list(parts.values())).mean(dim=0))
    first = build()
    first.load_state_dict(
        {name: value for name, value in model.state_dict().items() if name[:7] not in ("heads.1", "heads.2")}
    )
    torch.testing.assert_close(parts["ahead_1_loss"], first.image_losses(batch)[0])


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
