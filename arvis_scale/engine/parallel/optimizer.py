"""AdamW with the recipes' parameter groups, or Muon for the matrices of transformer blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW

from arvis_scale.config import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the run's optimizer over the trained parameters of `model`, an objective or its pipeline stages.

    AdamW has two groups: matrices and higher with weight decay, one-dimensional parameters without. Its kernel is
    torch's own fused one: DeepSpeed's would be compiled at the first step. With Muon the matrices of the blocks are a
    group behind them.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    hidden = {name for name in trained if config.name == "muon" and _is_hidden_matrix(name, trained[name])}
    others = [parameter for name, parameter in trained.items() if name not in hidden]
    adamw = {"lr": config.learning_rate, "betas": (config.beta1, config.beta2), "eps": 1e-8}
    groups = [
        {**adamw, "params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay},
        {**adamw, "params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.name == "muon":
        return _muon([trained[name] for name in sorted(hidden)], groups, config)
    return AdamW(_not_empty(groups), fused=True)


def _not_empty(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [group for group in groups if group["params"]]


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Return whether `parameter` is a matrix of a transformer block: those that Muon is for.

    Not embeddings, positions and heads (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).
    """
    return parameter.ndim == 2 and re.search(r"(^|\.)blocks\.\d+\.", name) is not None


def _muon(
    hidden: Sequence[nn.Parameter], others: list[dict[str, Any]], config: OptimizerConfig
) -> torch.optim.Optimizer:
    """Return DeepSpeed's Muon for the matrices `hidden`, with AdamW inside for the groups `others`.

    torch's own Muon cannot be used: ZeRO gives an optimizer flat shares of all parameters, in which there are no
    matrices. DeepSpeed orthogonalizes before it flattens, where parameters say `use_muon`.
    """
    # Imported here because it takes seconds.
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    matrices = {
        "params": list(hidden),
        "lr": config.muon_learning_rate,
        "momentum": config.muon_momentum,
        "weight_decay": config.weight_decay,
    }
    groups = _not_empty([*({**group, "use_muon": False} for group in others), {**matrices, "use_muon": True}])
    for group in groups:
        for parameter in group["params"]:
            parameter.use_muon = group["use_muon"]
    return MuonWithAuxAdam(groups, adam_optimizer=AdamW, adam_optimizer_kwargs={"fused": True})
