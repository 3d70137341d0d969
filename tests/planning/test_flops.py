"""FLOPs counted without data agree with counting by hand."""

import pytest
import torch
from torch import nn

from arvis_scale.models.build import build_objective
from arvis_scale.planning.flops import forward_flops_per_sample, training_flops_per_sample


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 4)

    def forward(self, batch):
        return self.second(self.first(batch["images"])).sum(), {}


def test_forward_and_backward_of_two_linear_maps():
    flops = training_flops_per_sample(TwoLayers, {"images": torch.zeros(3, 8)})
    # Forward, and the gradient of both weights and of the hidden layer; nobody asks for the gradient of the images.
    assert flops == 2 * (8 * 16 + 16 * 4) + 2 * (8 * 16 + 16 * 4 + 16 * 4)


def test_forward_of_a_frozen_function():
    assert forward_flops_per_sample(nn.Linear(8, 16), torch.zeros(5, 8)) == 2 * 8 * 16


def test_aim_costs_six_flops_per_weight_and_token_and_its_attention():
    """Kaplan et al. 2020 (arXiv 2001.08361, section 2.1), with the patch embedding's missing input gradient."""
    batch = {"images": torch.zeros(2, 3, 32, 32), "sample_seeds": torch.zeros(2, dtype=torch.int64)}
    build = lambda: build_objective("aim", preset="micro", image_size=32, patch_size=4)  # noqa: E731
    model, tokens, width, depth = build(), 64, 64, 4
    patch_weights = model.encoder.patch_embed.proj.weight.numel()
    weights = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1)
    attention = depth * 3 * 2 * 2 * tokens**2 * width
    expected = 6 * weights * tokens - 2 * patch_weights * tokens + attention
    assert training_flops_per_sample(build, batch) == pytest.approx(expected, rel=0.03)
