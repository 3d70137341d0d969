"""Activation checkpointing changes what is kept in memory and nothing else."""

import gc
import weakref
from copy import deepcopy

import pytest
import torch

from arvis_scale.engine.parallel.activation_checkpointing import checkpoint_blocks
from arvis_scale.models.build import OBJECTIVES, build_objective
from arvis_scale.models.pipeline import first_inputs

OPTIONS = {
    "xtra": {"block_side": 2, "drop_path": 0.5, "block_orders": 4},
    "digpt": {"segment_side": 2},
    "igpt": {"resolution": 4, "palette_size": 27},
}
TEACHER = {"teacher_grid": 4, "teacher_width": 12}


@pytest.fixture(params=OBJECTIVES)
def objective(request):
    return build(request.param)


def build(name):
    torch.manual_seed(0)
    options = OPTIONS.get(name)
    return build_objective(name, preset="nano", image_size=16, patch_size=4, options=options, **TEACHER).train()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "images": torch.randn(8, 3, 16, 16, generator=generator),
        "sample_seeds": torch.arange(8),
        "teacher_tokens": torch.randn(8, 17, 12, generator=generator),
        "step": torch.tensor(3),
    }


def whole_loss(objective, batch):
    return objective(batch)[0]


def pipelined_loss(objective, batch):
    layers = objective.pipeline_layers()
    flow = first_inputs(layers[0], batch)
    for layer in layers:
        flow = layer(flow)
    return flow


def loss_gradients_and_bytes(run, objective, batch):
    """Return the loss, the gradients by name, and the bytes of activations kept for the backward pass."""
    kept = {}

    def pack(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()  # held: no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = run(objective, batch)
    num_bytes = sum(storage.nbytes() for storage in kept.values())
    objective.zero_grad()
    loss.backward()
    return loss, {name: parameter.grad for name, parameter in objective.named_parameters()}, num_bytes


@pytest.mark.parametrize("run", [whole_loss, pipelined_loss])
def test_losses_and_gradients_are_bit_identical_and_less_is_kept(objective, batch, run):
    kept_all, kept_half, kept_none = objective, deepcopy(objective), deepcopy(objective)
    checkpoint_blocks(kept_half, every=2)
    checkpoint_blocks(kept_none, every=1)
    loss, gradients, num_bytes = loss_gradients_and_bytes(run, kept_all, batch)
    half_bytes = None
    for model in (kept_half, kept_none):
        other_loss, other_gradients, other_bytes = loss_gradients_and_bytes(run, model, batch)
        assert torch.equal(other_loss, loss)
        assert other_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert torch.equal(other_gradients[name], gradient), name
        assert other_bytes < (half_bytes or num_bytes)
        half_bytes = other_bytes
    assert half_bytes < 0.5 * num_bytes


def test_names_and_states_stay_as_they_are(objective):
    names, state = dict(objective.named_parameters()), objective.state_dict()
    checkpoint_blocks(objective, every=1)
    assert dict(objective.named_parameters()) == names
    assert objective.state_dict().keys() == state.keys()


def test_a_copy_computes_with_its_own_weights(objective, batch):
    checkpoint_blocks(objective, every=1)
    copied = deepcopy(objective)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.zero_()
    assert copied(batch)[0] != objective(batch)[0]


def test_zero_leaves_every_block_alone(objective):
    checkpoint_blocks(objective, every=0)
    assert not any("forward" in vars(module) for module in objective.modules())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_stage_of_a_pipeline_keeps_no_block_of_another_stage(name):
    objective = build(name)
    checkpoint_blocks(objective, every=1)
    other_block = weakref.ref(objective.encoder.blocks[0])
    last_layer = objective.pipeline_layers()[-1]
    del objective
    gc.collect()
    assert other_block() is None, last_layer
