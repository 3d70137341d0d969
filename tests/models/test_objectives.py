"""What holds for every objective."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from arvis_scale.models.build import OBJECTIVES, build_objective
from arvis_scale.models.objective import Objective, mean_over_images

MakeBatch = Callable[..., dict[str, Tensor]]
OPTIONS = {
    "xtra": {"block_side": 2, "drop_path": 0.5},
    "aim": {},
    "digpt": {"segment_side": 2},
    "igpt": {"resolution": 4, "palette_size": 27},
    "mae": {},
}


def build(name: str) -> Objective:
    return build_objective(
        name,
        preset="nano",
        image_size=16,
        patch_size=4,
        options=OPTIONS[name],
        teacher_grid=4,
        teacher_width=12,
    )


@pytest.fixture(params=OBJECTIVES)
def model(request: pytest.FixtureRequest, perturb: Callable[..., None]) -> Objective:
    torch.manual_seed(0)
    objective = build(request.param)
    perturb(objective, std=0.05)
    return objective.train()


@pytest.fixture
def batch(make_batch: MakeBatch) -> dict[str, Tensor]:
    return make_batch(num_images=8, teacher=(4, 12))


def gradients(model: Objective, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def test_micro_batches_give_the_loss_and_gradients_of_the_whole(model: Objective, batch: dict[str, Tensor]) -> None:
    """With stochastic depth, prefixes and orders on: every draw belongs to its image."""
    whole, _ = model(batch)
    parts = [{key: value[part] for key, value in batch.items()} for part in ([5, 1], [0, 2], [7, 3], [6, 4])]
    accumulated = torch.stack([model(part)[0] for part in parts]).mean()
    torch.testing.assert_close(accumulated, whole)
    for one, other in zip(gradients(model, whole), gradients(model, accumulated), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_weight_zero_takes_an_image_out(model: Objective, batch: dict[str, Tensor]) -> None:
    weighted, weighted_metrics = model({**batch, "weights": torch.tensor([1.0] * 5 + [0.0] * 3)})
    loss, metrics = model({key: value[:5] for key, value in batch.items()})
    torch.testing.assert_close(weighted, loss)
    torch.testing.assert_close(weighted_metrics, metrics)


def test_mean_over_images_weighs_and_survives_a_batch_of_padding() -> None:
    losses = torch.tensor([1.0, 3.0])
    assert mean_over_images(losses, None) == 2
    assert mean_over_images(losses, torch.tensor([3.0, 1.0])) == 1.5
    assert mean_over_images(losses, torch.zeros(2)) == 0


def test_every_parameter_gets_a_gradient(model: Objective, batch: dict[str, Tensor]) -> None:
    for (name, _), gradient in zip(model.named_parameters(), gradients(model, model(batch)[0]), strict=True):
        assert gradient.isfinite().all() and gradient.abs().max() > 0, name


def test_bfloat16_weights_give_about_the_same_loss_in_float32(model: Objective, batch: dict[str, Tensor]) -> None:
    """Parameters alone are cast, as DeepSpeed does; buffers stay in float32."""
    expected = model(batch)[0].item()
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    loss, _ = model(batch)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=0.02)


def test_forward_and_backward_run_without_memory(model: Objective, batch: dict[str, Tensor]) -> None:
    loss, _ = model.to("meta")({key: value.to("meta") for key, value in batch.items()})
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_layer_outputs_are_the_asked_layers_in_raster_order(model: Objective, batch: dict[str, Tensor]) -> None:
    model.eval()
    first, last, again = model.encoder.layer_outputs(batch["images"], [1, 2, 1])
    assert first.shape == last.shape == (8, 16, 32)
    assert torch.equal(first, again) and not torch.equal(first, last)
    with pytest.raises(ValueError, match=r"layers=\[3\] must lie between 1 and the encoder's depth 2"):
        model.encoder.layer_outputs(batch["images"], [3])


def test_images_of_another_size_are_refused(model: Objective, batch: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="images are 3 x 20 x 20, the model takes 3 x 16 x 16"):
        model.encoder.layer_outputs(torch.zeros(1, 3, 20, 20), [1])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_learns_a_fixed_batch(name: str, batch: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    model = build(name).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    before = model(batch)[0].item()
    for _ in range(30):
        loss, _ = model(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model(batch)[0].item() < 0.8 * before


def test_initial_weights_follow_the_papers() -> None:
    torch.manual_seed(0)
    xtra, digpt = build("xtra"), build("digpt")
    linear = xtra.encoder.blocks[0].mlp.fc1
    assert not linear.bias.any() and linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert xtra.encoder.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)
    linear = digpt.encoder.blocks[0].mlp.fc1
    bound = (6 / (32 + 128)) ** 0.5
    assert not linear.bias.any() and 0.99 * bound < linear.weight.abs().max().item() <= bound
    assert digpt.encoder.cls_token.any()
