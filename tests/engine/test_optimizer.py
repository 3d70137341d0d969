"""Parameter groups of AdamW and Muon."""

import math

import pytest
import torch
from torch import nn

from arvis_scale.config import OptimizerConfig
from arvis_scale.engine.parallel.optimizer import build_optimizer
from arvis_scale.models.build import build_objective

MUON = {"name": "muon", "clip_grad_norm": math.inf}


@pytest.fixture
def objective():
    torch.manual_seed(0)
    return build_objective("mae", preset="nano", image_size=16, patch_size=4)


def names_by_group(optimizer, model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [{names[id(parameter)] for parameter in group["params"]} for group in optimizer.param_groups]


def test_one_dimensional_parameters_have_no_weight_decay():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.05))
    decays = {tuple(p.shape): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {(4, 4): 0.05, (4,): 0.0}


def test_adamw_follows_its_formula():
    """Loshchilov and Hutter (arXiv 1711.05101), algorithm 2, two steps."""
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.2, beta1=0.8, beta2=0.9)
    model = nn.Linear(1, 1, bias=False)
    weight = model.weight.detach().double().item()
    optimizer = build_optimizer(model, config)
    first, second = 0.0, 0.0
    for step, gradient in enumerate((0.5, -2.0), start=1):
        model.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        first, second = 0.8 * first + 0.2 * gradient, 0.9 * second + 0.1 * gradient**2
        update = (first / (1 - 0.8**step)) / (math.sqrt(second / (1 - 0.9**step)) + 1e-8)
        weight = weight - 0.1 * 0.2 * weight - 0.1 * update
    assert model.weight.item() == pytest.approx(weight, rel=1e-6)


def test_muon_has_the_matrices_of_the_blocks_alone(objective):
    matrices, vectors, hidden = names_by_group(build_optimizer(objective, OptimizerConfig(**MUON)), objective)
    layers = ("attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight")
    assert {name.split(".blocks.")[1].partition(".")[2] for name in hidden} == set(layers)
    assert {name.split(".")[0] for name in hidden} == {"encoder", "decoder"}
    assert matrices >= {"encoder.patch_embed.proj.weight", "decoder.proj.weight", "decoder.mask_token"}
    assert all(parameter.ndim == 1 for name, parameter in objective.named_parameters() if name in vectors)
    assert hidden | matrices | vectors == dict(objective.named_parameters()).keys()


def test_muon_groups_are_the_same_when_the_objective_is_cut_into_layers(objective):
    whole = names_by_group(build_optimizer(objective, OptimizerConfig(**MUON)), objective)
    layers = nn.ModuleList(objective.pipeline_layers())
    cut = names_by_group(build_optimizer(layers, OptimizerConfig(**MUON)), layers)
    assert [{name.split("objective.")[1] for name in group} for group in cut] == whole


def test_muon_has_a_rate_and_a_momentum_of_its_own(objective):
    config = OptimizerConfig(**MUON, learning_rate=3e-4, muon_learning_rate=0.01, muon_momentum=0.9)
    groups = build_optimizer(objective, config).param_groups
    assert [group["lr"] for group in groups] == [3e-4, 3e-4, 0.01]
    assert groups[2]["momentum"] == 0.9


@pytest.mark.parametrize("shape", [(64, 24), (48, 16), (16, 48)])
def test_muon_makes_an_update_nearly_orthogonal(shape):
    """As its authors say: singular vectors are kept, singular values end near 1, between 0.7 and 1.2."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(shape[1], shape[0], bias=False)])})
    optimizer = build_optimizer(model, OptimizerConfig(**MUON, muon_learning_rate=0.5, weight_decay=0.0))
    weight = model["blocks"][0].weight
    before, weight.grad = weight.detach().clone(), torch.randn(shape)
    left, _, right = torch.linalg.svd(weight.grad, full_matrices=False)
    with torch.compiler.set_stance("force_eager"):  # DeepSpeed compiles it elsewhere
        optimizer.step()
    update = (before - weight.detach()) / (0.5 * math.sqrt(max(1, shape[0] / shape[1])))
    rotated = left.T @ update @ right.T
    assert rotated.diagonal().min() > 0.65 and rotated.diagonal().max() < 1.25
    assert (rotated - rotated.diagonal().diag()).abs().max() < 0.02


def test_muon_with_clipping_is_refused():
    with pytest.raises(ValueError, match=r"clip_grad_norm=1.0 would scale Muon's finished updates.*clip_grad_norm=inf"):
        OptimizerConfig(name="muon").validate()
