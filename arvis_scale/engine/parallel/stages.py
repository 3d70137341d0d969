"""Where a pipeline is cut: stages of equal work, counted on the meta device before anything starts."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from arvis_scale.config import RunConfig
from arvis_scale.engine.setup import build_of, shapes_of_batch, teacher_shape_of
from arvis_scale.models.pipeline import first_inputs


def layer_flops(config: RunConfig) -> list[int]:
    """Return the FLOPs of one micro batch's forward pass through each layer of the run's pipeline."""
    with torch.device("meta"):
        layers = build_of(config, teacher_shape_of(config)).train().pipeline_layers()
        sent = first_inputs(layers[0], shapes_of_batch(config, config.micro_batch_size))
    flops = []
    for layer in layers:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            sent = layer(sent)
        flops.append(counter.get_total_flops())
    return flops


def stage_bounds(config: RunConfig) -> list[int]:
    """Return the numbers of the layers at which the run's stages begin, and the number of layers.

    The slowest stage sets the pace: its FLOPs are the least possible. Raises `ValueError` for more stages than layers.
    """
    return balanced_bounds(layer_flops(config), config.parallel.stages)


def balanced_bounds(costs: list[int], num_stages: int) -> list[int]:
    """Cut `costs` into `num_stages` consecutive, non-empty parts whose largest sum is the least possible."""
    if num_stages > len(costs):
        raise ValueError(f"parallel.stages={num_stages} is more than the objective has layers, {len(costs)}; lower it")
    # best[first]: (largest sum, bounds) of the layers from `first` on, in as many stages as rounds were done.
    best = {first: (sum(costs[first:]), [first, len(costs)]) for first in range(len(costs))}
    for _ in range(num_stages - 1):
        best = {
            first: min(
                (max(sum(costs[first:cut]), best[cut][0]), [first, *best[cut][1]])
                for cut in range(first + 1, len(costs))
                if cut in best
            )
            for first in range(len(costs) - 1)
            if first + 1 in best
        }
    return best[0][1]
