"""AIM: prefix attention, the loss after the prefix, and transfer without a mask."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from arvis_scale.models.aim import Aim
from arvis_scale.models.build import build_objective
from arvis_scale.models.pixels import to_squares

MakeBatch = Callable[..., dict[str, Tensor]]
NUM_PATCHES = 16


@pytest.fixture
def model(perturb: Callable[..., None]) -> Aim:
    objective = build_objective("aim", preset="nano", image_size=16, patch_size=4)
    assert isinstance(objective, Aim)
    perturb(objective)
    return objective


@pytest.mark.parametrize("length", [1, 5, NUM_PATCHES - 1])
def test_a_prediction_sees_the_prefix_and_the_patches_up_to_its_own(
    model: Aim, make_batch: MakeBatch, length: int
) -> None:
    images = make_batch(num_images=1)["images"].requires_grad_()
    predictions = model.predict_patches(images, torch.tensor([length]))
    for place in range(NUM_PATCHES - 1):
        [gradient] = torch.autograd.grad(predictions[0, place].square().sum(), images, retain_graph=True)
        seen = to_squares(gradient, 4)[0].abs().sum(dim=1) > 0
        last = max(place, length - 1) if place < length else place
        assert seen.tolist() == [patch <= last for patch in range(NUM_PATCHES)], f"place {place}"


@pytest.mark.parametrize("length", [1, 5, NUM_PATCHES - 1])
def test_loss_is_the_mean_over_the_patches_after_the_prefix(model: Aim, make_batch: MakeBatch, length: int) -> None:
    batch = make_batch()
    batch["prefix_length"] = torch.full((4,), length)
    losses, _ = model.image_losses(batch)
    squares = to_squares(batch["images"], 4)
    targets = (squares - squares.mean(-1, keepdim=True)) / (squares.var(-1, keepdim=True) + 1e-6).sqrt()
    predictions = model.predict_patches(batch["images"], batch["prefix_length"])
    errors = [(predictions[:, patch - 1] - targets[:, patch]).square().mean(1) for patch in range(length, NUM_PATCHES)]
    torch.testing.assert_close(losses, torch.stack(errors).mean(0))


def test_loss_does_not_depend_on_how_images_are_grouped(model: Aim, make_batch: MakeBatch) -> None:
    batch = make_batch(num_images=6)
    whole, _ = model(batch)
    groups = [{key: value[part] for key, value in batch.items()} for part in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(whole, torch.stack([model(group)[0] for group in groups]).mean())


def test_trunk_has_no_biases_in_attention_and_mlp(model: Aim) -> None:
    names = [name for name, _ in model.encoder.blocks.named_parameters()]
    assert [name for name in names if name.endswith("bias") and "norm" not in name] == []
    assert [name for name, _ in model.head.blocks.named_parameters() if "mlp" in name and name.endswith("bias")] == []


def test_every_patch_sees_every_patch_at_transfer(model: Aim, make_batch: MakeBatch) -> None:
    images = make_batch(num_images=1)["images"].requires_grad_()
    [tokens] = model.encoder.layer_outputs(images, [2])
    [gradient] = torch.autograd.grad(tokens[0, 0].square().sum(), images)
    assert (to_squares(gradient, 4)[0].abs().sum(dim=1) > 0).all()


def test_reconstruction_keeps_the_prefix_and_shows_predictions_after_it(model: Aim, make_batch: MakeBatch) -> None:
    batch = make_batch()
    batch["prefix_length"] = torch.tensor([1, 4, 9, 15])
    pictures = model.reconstruct(batch)
    target, prediction = to_squares(pictures["target"], 4), to_squares(pictures["prediction"], 4)
    same = (target == prediction).all(dim=2)
    assert same.tolist() == [[patch < length for patch in range(NUM_PATCHES)] for length in (1, 4, 9, 15)]
    scaled = (prediction - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    expected = model.predict_patches(batch["images"], batch["prefix_length"])
    torch.testing.assert_close(scaled[0, 1:], expected[0], atol=1e-4, rtol=1e-4)


def test_prefix_lengths_need_seeds(model: Aim, make_batch: MakeBatch) -> None:
    with pytest.raises(ValueError, match=r"prefix lengths are drawn from batch\[\"sample_seeds\"\]"):
        model({"images": make_batch()["images"]})
