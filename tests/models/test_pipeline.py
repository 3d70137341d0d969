"""The pipeline form of every objective against its ordinary form."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arvis_scale.models.build import build_objective
from arvis_scale.models.digpt import Digpt
from arvis_scale.models.objective import Objective
from arvis_scale.models.pipeline import Cargo, PipelineLayer, first_inputs
from arvis_scale.models.presets import EncoderSize

MakeBatch = Callable[..., dict[str, Tensor]]
TEACHER = (6, 20)  # grid, width
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "xtra": ("xtra", {"block_side": 2, "drop_path": 0.5}),
    "xtra-options": ("xtra", {"block_side": 1, "blocks_ahead": 3, "loss": "l1", "block_orders": 16}),
    "aim": ("aim", {}),
    "igpt": ("igpt", {"resolution": 4, "palette_size": 16}),
    "mae": ("mae", {}),
    "digpt": ("digpt", {"segment_side": 2}),
    "digpt-generative": ("digpt", {"segment_side": 1, "decoders": ["generative"]}),
}


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest, perturb: Callable[..., None]) -> Objective:
    name, options = CASES[request.param]
    grid = 4 if options.get("segment_side") == 1 else TEACHER[0]
    objective = build_objective(
        name,
        preset="micro",
        image_size=16,
        patch_size=4,
        options=options,
        teacher_grid=grid,
        teacher_width=TEACHER[1],
    )
    perturb(objective, std=0.05)
    return objective.train()


@pytest.fixture
def batch(model: Objective, make_batch: MakeBatch) -> dict[str, Tensor]:
    grid = round((model.teacher_shape[0] - 1) ** 0.5) if isinstance(model, Digpt) else 2
    return {**make_batch(teacher=(grid, TEACHER[1])), "step": torch.tensor(7)}


def run_stages(layers: list[PipelineLayer], num_stages: int, inputs: tuple[Tensor, ...]) -> tuple[Tensor, list[Cargo]]:
    """Run forward and backward as a pipeline engine does; return the loss and what crosses each boundary.

    What a stage receives is detached; floats require a gradient, which is sent back, and must have got one.
    """
    cuts = [round(stage * len(layers) / num_stages) for stage in range(num_stages + 1)]
    stages = [layers[start:stop] for start, stop in pairwise(cuts)]
    received, sent, crossing = [], [], []
    flow: Any = inputs
    for stage in stages:
        arrived = flow if isinstance(flow, tuple) else (flow,)
        assert all(tensor.is_contiguous() for tensor in arrived)
        arrived = tuple(tensor.detach().clone() for tensor in arrived)
        if received:
            arrived = tuple(tensor.requires_grad_(tensor.is_floating_point()) for tensor in arrived)
        received.append(arrived)
        flow = arrived if len(arrived) > 1 else arrived[0]
        for layer in stage:
            flow = layer(flow)
        sent.append(flow if isinstance(flow, tuple) else (flow,))
        crossing.append(stage[-1].leaving)
    gradients: list[Tensor] = [torch.ones(())]
    for arrived, outputs in zip(reversed(received), reversed(sent), strict=True):
        floats = [tensor for tensor in outputs if tensor.is_floating_point()]
        # Where there were several, DeepSpeed would run as many backward passes through the same parameters.
        assert len(floats) == 1
        torch.autograd.backward(floats, gradients)
        if arrived is not received[0]:
            gradients = []
            for tensor in arrived:
                if tensor.is_floating_point():
                    assert tensor.grad is not None
                    gradients.append(tensor.grad)
    return flow, crossing[:-1]


@pytest.mark.parametrize("num_stages", [1, 3, 5])
@pytest.mark.parametrize("training", [True, False])
def test_stages_give_the_loss_and_gradients_of_the_ordinary_form(
    model: Objective, batch: dict[str, Tensor], num_stages: int, training: bool
) -> None:
    model.train(training)
    batch["weights"] = torch.tensor([1.0, 1.0, 0.0, 1.0])
    expected, _ = model(batch)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    layers = model.pipeline_layers()
    loss, _ = run_stages(layers, num_stages, first_inputs(layers[0], batch))
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        assert parameter.grad is not None, name
        torch.testing.assert_close(
            parameter.grad, gradient, atol=1e-6, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_each_parameter_belongs_to_one_layer_under_its_own_name(model: Objective) -> None:
    found: dict[str, nn.Parameter] = {}
    for layer in model.pipeline_layers():
        for name, parameter in layer.objective.named_parameters():
            assert name not in found
            found[name] = parameter
    expected = dict(model.named_parameters())
    assert found.keys() == expected.keys()
    assert all(found[name] is expected[name] for name in expected)


def test_missing_weights_count_every_image(model: Objective, batch: dict[str, Tensor]) -> None:
    layers = model.pipeline_layers()
    loss, _ = run_stages(layers, 1, first_inputs(layers[0], batch))
    torch.testing.assert_close(loss, model(batch)[0], atol=1e-6, rtol=1e-6)


def test_a_missing_entry_of_the_batch_is_named(make_batch: MakeBatch) -> None:
    model = build_objective("mae", preset="nano", image_size=16, patch_size=4)
    batch = make_batch()
    del batch["sample_seeds"]
    with pytest.raises(ValueError, match=r"the pipeline reads batch\['sample_seeds'\]; the batch has images"):
        first_inputs(model.pipeline_layers()[0], batch)


def test_taps_on_different_stages_travel_as_far_as_they_are_read(
    make_batch: MakeBatch, perturb: Callable[..., None]
) -> None:
    torch.manual_seed(0)
    model = Digpt(
        size=EncoderSize(width=16, depth=12, num_heads=2, mlp_hidden=32),
        image_size=16,
        patch_size=4,
        segment_side=2,
        decoders=["generative", "discriminative"],
        decoder_width=16,
        decoder_depth=2,
        decoder_heads=2,
        teacher_width=TEACHER[1],
        teacher_grid=TEACHER[0],
    )
    perturb(model, std=0.1)
    batch = make_batch(teacher=TEACHER)
    expected, _ = model(batch)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    layers = model.pipeline_layers()
    # 24 layers, 3 a stage: the embedding and layers 1-2, 3-5, 6-8, 9-11, layer 12 and both projections, ...
    loss, crossing = run_stages(layers, 8, first_inputs(layers[0], batch))
    assert [set(cargo.written) for cargo in crossing[:5]] == [
        {"encoder_2"},
        {"encoder_5"},
        {"encoder_6", "encoder_8"},
        {"encoder_6", "encoder_8", "encoder_10", "encoder_11"},
        {"generative_features", "discriminative_features"},
    ]
    assert all(set(cargo.entries) == {"teacher_tokens", "sample_seeds", "weights"} for cargo in crossing)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(
            parameter.grad, gradient, atol=1e-6, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )
