"""FLOPs of one training sample, counted by running the model without data.

A run's `train_flops` come from here: the count follows whatever the model computes. `planning.costs` has the same
numbers in closed form, part by part; the tests hold the two equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def training_flops_per_sample(build: Callable[[], nn.Module], batch: dict[str, Tensor]) -> float:
    """Return the matrix-multiply FLOPs of one image's forward and backward pass (a multiply-add counts as two).

    `build` makes the objective, here on the meta device, and `batch` gives the shapes (any batch size B), so nothing is
    computed. Masked attention counts as dense: a GPU kernel that skips masked tiles does less.
    """
    shapes = {key: torch.empty_like(value, device="meta") for key, value in batch.items()}
    with torch.device("meta"):
        model = build().train()
    with FlopCounterMode(display=False) as counter:
        loss, _ = model(shapes)
        loss.backward()
    return counter.get_total_flops() / batch["images"].shape[0]


def forward_flops_per_sample(function: Callable[[Tensor], Any], images: Tensor) -> float:
    """Return the FLOPs of one image's pass through a frozen `function` of `B x 3 x H x W` images, by running it."""
    with FlopCounterMode(display=False) as counter:
        function(images)
    return counter.get_total_flops() / images.shape[0]
