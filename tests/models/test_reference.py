"""The plain references against the golden files, and the fast objectives against the references."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from arvis_scale.models.aim import Aim
from arvis_scale.models.build import build_objective
from arvis_scale.models.digpt import Digpt
from arvis_scale.models.igpt import Igpt
from arvis_scale.models.mae import Mae
from arvis_scale.models.objective import Objective
from arvis_scale.models.presets import EncoderSize, encoder_size
from arvis_scale.models.released import from_released, our_names
from arvis_scale.models.xtra import Xtra

from .reference import aim as aim_reference
from .reference import digpt as digpt_reference
from .reference import igpt as igpt_reference
from .reference import mae as mae_reference
from .reference import xtra as xtra_reference

Golden = Callable[[str], dict[str, Tensor]]
MakeBatch = Callable[..., dict[str, Tensor]]
Perturb = Callable[..., None]


def group(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def trainable(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return leaves in float64, in which references compute, so that a difference is never their rounding."""
    return {name: weight.double().requires_grad_() for name, weight in weights.items()}


def assert_close(got: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(got.detach(), expected.double(), atol=atol, rtol=0)


def assert_same_gradients(got: dict[str, Tensor], expected: dict[str, Tensor], bound: float = 1e-4) -> None:
    """The bound of the golden files: relative to the largest entry of each tensor."""
    assert got.keys() == expected.keys()
    for name in expected:
        difference = (got[name] - expected[name]).abs().max().item()
        assert difference <= bound * expected[name].abs().max().item(), f"{name}: {difference}"


def gradients(loss: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


def released_gradients(objective: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    released = group(tensors, "grads.")
    return {ours: released[name] for name, ours in our_names(objective, released).items()}


def assert_model_equals(
    model: Objective, batch: dict[str, Tensor], reference: Callable[[dict[str, Tensor]], Tensor]
) -> None:
    """Check loss and every gradient; `reference` maps the model's weights to the loss."""
    loss, _ = model(batch)
    weights = trainable({name: parameter.detach() for name, parameter in model.named_parameters()})
    expected = reference(weights)
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    assert_same_gradients(gradients(loss, dict(model.named_parameters())), gradients(expected, weights))


def test_xtra_reference_equals_the_released(golden: Golden) -> None:
    tensors = golden("xtra_small.safetensors")
    weights = trainable(from_released("xtra", group(tensors, "weights.")))
    shape = xtra_reference.Shape(patch_size=4, block_side=2, num_heads=3, predictor_heads=4)
    outputs = [xtra_reference.xtra(image, weights, shape) for image in tensors["input.images"].double()]
    got = torch.stack([output.encoder_tokens for output in outputs])
    assert_close(got, tensors["output.encoder_tokens"])
    got = torch.stack([output.predictions[0] for output in outputs])
    assert_close(got, tensors["output.block_predictions"])
    loss = torch.stack([output.loss for output in outputs]).mean()
    assert_close(loss, tensors["output.loss"][0])
    assert_same_gradients(gradients(loss, weights), released_gradients("xtra", tensors))


def test_digpt_reference_equals_the_released(golden: Golden) -> None:
    tensors = golden("digpt_small.safetensors")
    weights = trainable(from_released("digpt", group(tensors, "weights.")))
    shape = digpt_reference.Shape(
        patch_size=16, segment_side=7, num_heads=3, decoder_heads=4, taps=(6, 8, 10, 12), teacher_grid=16
    )
    images, teacher_tokens = tensors["input.images"].double(), tensors["input.teacher_tokens"].double()
    outputs = [
        digpt_reference.digpt(image, tokens, weights, shape, order)
        for image, tokens, order in zip(images, teacher_tokens, tensors["input.segment_order"].tolist(), strict=True)
    ]
    for layer in (6, 12):
        got = torch.stack([output.layers[layer] for output in outputs])
        # In float64 our fast model is as far from these float32 values, which reach 18.
        assert_close(got, tensors[f"output.encoder_layer_{layer}"], atol=2e-5)
    losses = []
    for name, released in (("generative", "ar"), ("discriminative", "kd")):
        got = torch.stack([output.predictions[name] for output in outputs])
        assert_close(got, tensors[f"output.{name}_predictions"])
        losses.append(torch.stack([output.losses[name] for output in outputs]).mean())
        assert_close(losses[-1], tensors[f"output.{released}_loss"][0])
    assert_same_gradients(gradients(losses[0] + losses[1], weights), released_gradients("digpt", tensors))


@pytest.mark.parametrize(
    ("image_size", "patch_size", "options"),
    [
        (16, 4, {"block_side": 2}),
        (24, 4, {"block_side": 2}),
        (24, 4, {"block_side": 3}),
        (24, 2, {"block_side": 6}),
        (12, 4, {"block_side": 1}),
        (24, 4, {"block_side": 2, "blocks_ahead": 3}),
        (16, 4, {"block_side": 2, "blocks_ahead": 3, "loss": "l1"}),
        (24, 4, {"block_side": 2, "block_orders": 9}),
        (24, 4, {"block_side": 3, "block_orders": 3, "blocks_ahead": 2}),
        (12, 4, {"block_side": 1, "block_orders": 9, "loss": "l1"}),
    ],
)
def test_xtra_in_block_layout_equals_the_reference_in_raster_layout(
    make_batch: MakeBatch, perturb: Perturb, image_size: int, patch_size: int, options: dict[str, Any]
) -> None:
    size = encoder_size("nano")
    model = build_objective(
        "xtra", preset="nano", image_size=image_size, patch_size=patch_size, options={"drop_path": 0.0, **options}
    )
    assert isinstance(model, Xtra)
    perturb(model)
    shape = xtra_reference.Shape(
        patch_size, options["block_side"], size.num_heads, size.num_heads // 2, options.get("loss", "mse")
    )
    batch = make_batch(2, image_size)
    for step in range(3 if len(model.orders) > 1 else 1):
        order = model.block_order(torch.tensor(step))
        numbers = None if order is None else order.tolist()

        def reference(weights: dict[str, Tensor], numbers: list[int] | None = numbers) -> Tensor:
            return torch.stack(
                [xtra_reference.xtra(i, weights, shape, numbers).loss for i in batch["images"].double()]
            ).mean()

        assert_model_equals(model, {**batch, "step": torch.tensor(step)}, reference)


@pytest.mark.parametrize(("image_size", "patch_size", "lengths"), [(16, 4, [1, 15]), (12, 4, [4, 7]), (8, 4, [3, 2])])
def test_aim_equals_the_reference(
    make_batch: MakeBatch, perturb: Perturb, image_size: int, patch_size: int, lengths: list[int]
) -> None:
    model = build_objective(
        "aim", preset="nano", image_size=image_size, patch_size=patch_size, options={"head_depth": 2, "head_width": 24}
    )
    assert isinstance(model, Aim)
    perturb(model)
    batch = {**make_batch(2, image_size), "prefix_length": torch.tensor(lengths)}

    def reference(weights: dict[str, Tensor]) -> Tensor:
        outputs = [
            aim_reference.aim(image, weights, patch_size=patch_size, num_heads=2, prefix_length=length)
            for image, length in zip(batch["images"].double(), lengths, strict=True)
        ]
        return torch.stack([output.loss for output in outputs]).mean()

    assert_model_equals(model, batch, reference)


@pytest.mark.parametrize(
    ("image_size", "patch_size", "segment_side", "depth", "taps", "teacher_grid", "decoders"),
    [
        (16, 4, 2, 1, (1, 1, 1, 1), 6, ["generative", "discriminative"]),
        (24, 4, 3, 2, (1, 2, 2, 2), 4, ["discriminative", "generative"]),  # the teacher is coarser: 3 x 3 -> 2 x 2
        (12, 4, 1, 3, (2, 2, 3, 3), 6, ["generative", "discriminative"]),  # one patch a segment, 9 segments
        (12, 2, 2, 4, (2, 3, 4, 4), 6, ["generative"]),  # equal grids
        (16, 4, 2, 7, (4, 5, 6, 7), 10, ["discriminative"]),
        (24, 4, 2, 1, (1, 1, 1, 1), 3, ["generative"]),  # one semantic token a segment
    ],
)
def test_digpt_equals_the_reference(
    make_batch: MakeBatch,
    perturb: Perturb,
    image_size: int,
    patch_size: int,
    segment_side: int,
    depth: int,
    taps: tuple[int, ...],
    teacher_grid: int,
    decoders: list[str],
) -> None:
    model = Digpt(
        size=EncoderSize(width=16, depth=depth, num_heads=2, mlp_hidden=32),
        image_size=image_size,
        patch_size=patch_size,
        segment_side=segment_side,
        decoders=decoders,
        decoder_width=24,
        decoder_depth=2,
        decoder_heads=3,
        teacher_width=10,
        teacher_grid=teacher_grid,
    )
    perturb(model)
    shape = digpt_reference.Shape(patch_size, segment_side, 2, 3, taps, teacher_grid)
    batch = make_batch(2, image_size, teacher=(teacher_grid, 10))
    orders = model.segment_order(batch).tolist()

    def reference(weights: dict[str, Tensor]) -> Tensor:
        losses = []
        for image, tokens, order in zip(
            batch["images"].double(), batch["teacher_tokens"].double(), orders, strict=True
        ):
            losses += digpt_reference.digpt(image, tokens, weights, shape, order).losses.values()
        return torch.stack(losses).sum() / len(orders)

    assert_model_equals(model, batch, reference)


@pytest.mark.parametrize(("image_size", "resolution", "num_colors"), [(8, 8, 27), (12, 4, 10), (16, 4, 2)])
def test_igpt_equals_the_reference(
    make_batch: MakeBatch, perturb: Perturb, image_size: int, resolution: int, num_colors: int
) -> None:
    options = {"resolution": resolution, "palette_size": num_colors}
    model = build_objective("igpt", preset="nano", image_size=image_size, patch_size=1, options=options)
    assert isinstance(model, Igpt)
    perturb(model)
    generator = torch.Generator().manual_seed(2)
    model.encoder.set_palette(2 * torch.rand(num_colors, 3, generator=generator) - 1)
    palette = model.encoder.palette.double().tolist()
    batch = make_batch(2, image_size)

    def outputs(weights: dict[str, Tensor]) -> list[igpt_reference.Output]:
        return [
            igpt_reference.igpt(image, weights, palette, resolution=resolution, num_heads=2)
            for image in batch["images"].double()
        ]

    assert_model_equals(model, batch, lambda weights: torch.stack([output.loss for output in outputs(weights)]).mean())
    expected = outputs({name: parameter.detach().double() for name, parameter in model.named_parameters()})
    assert model.encoder.quantize(batch["images"]).tolist() == [output.colors for output in expected]
    for layer, got in enumerate(model.encoder.layer_outputs(batch["images"], [1, 2])):
        # float32 against values that reach 20.
        assert_close(got.double(), torch.stack([output.layers[layer] for output in expected]), atol=3e-5)


@pytest.mark.parametrize(
    ("image_size", "patch_size", "mask_ratio"), [(16, 4, 0.75), (12, 4, 0.5), (12, 2, 0.9), (8, 4, 0.25)]
)
def test_mae_equals_the_reference(
    make_batch: MakeBatch, perturb: Perturb, image_size: int, patch_size: int, mask_ratio: float
) -> None:
    options = {"mask_ratio": mask_ratio, "decoder_depth": 2, "decoder_heads": 3, "decoder_width": 24}
    model = build_objective("mae", preset="nano", image_size=image_size, patch_size=patch_size, options=options)
    assert isinstance(model, Mae)
    perturb(model)
    batch = make_batch(2, image_size)
    visible = model.visible_patches(batch)

    def outputs(weights: dict[str, Tensor]) -> list[mae_reference.Output]:
        return [
            mae_reference.mae(image, weights, patch_size=patch_size, num_heads=2, decoder_heads=3, visible=patches)
            for image, patches in zip(batch["images"].double(), visible.tolist(), strict=True)
        ]

    assert_model_equals(model, batch, lambda weights: torch.stack([output.loss for output in outputs(weights)]).mean())
    expected = outputs({name: parameter.detach().double() for name, parameter in model.named_parameters()})
    got = model.predict_patches(batch["images"], visible)
    assert_close(got.double(), torch.stack([output.predictions for output in expected]))
