"""Schedule and parameter groups."""

from itertools import pairwise

import pytest
from torch import nn

from arvis_scale.config import OptimizerConfig
from arvis_scale.engine.optimizer import build_optimizer, learning_rate_factor


def test_schedule_warms_up_to_the_peak_and_decays_to_the_end():
    config = OptimizerConfig(
        learning_rate=1e-3, initial_learning_rate=1e-4, final_learning_rate=1e-6, warmup_fraction=0.1
    )
    rates = [1e-3 * learning_rate_factor(config, 100)(step) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[10] == pytest.approx(1e-3)
    assert rates[99] == pytest.approx(1e-6)
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:]))


def test_no_warm_up_starts_at_the_peak():
    assert learning_rate_factor(OptimizerConfig(warmup_fraction=0.0), 10)(0) == 1.0


def test_one_dimensional_parameters_have_no_weight_decay():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.05))
    decays = {tuple(p.shape): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {(4, 4): 0.05, (4,): 0.0}
