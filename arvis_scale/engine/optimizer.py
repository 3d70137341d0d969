"""AdamW with the recipes' parameter groups, and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from arvis_scale.config import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW over two groups: matrices and higher with weight decay, one-dimensional parameters without.

    torch's own AdamW: DeepSpeed's fused kernels would be compiled at the first step.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=next(model.parameters()).device.type == "cuda",
    )


def learning_rate_factor(config: OptimizerConfig, num_steps: int) -> Callable[[int], float]:
    """Return step -> learning rate as a fraction of the peak, for steps 0..num_steps-1.

    A line from the initial rate up to the peak, reached at step `warmup_fraction * num_steps`, then a half cosine down
    to the final rate, reached at the last step.
    """
    warmup_steps = round(config.warmup_fraction * num_steps)
    initial = config.initial_learning_rate / config.learning_rate
    final = config.final_learning_rate / config.learning_rate

    def factor(step: int) -> float:
        if step < warmup_steps:
            return initial + (1.0 - initial) * step / warmup_steps
        progress = (step - warmup_steps) / max(1, num_steps - 1 - warmup_steps)
        return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    return factor
