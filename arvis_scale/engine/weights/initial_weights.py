"""Weights that a run starts from instead of random ones: the whole objective, as `weights import` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from arvis_scale.atomic import whole_file
from arvis_scale.config import RunConfig
from arvis_scale.models.objective import Objective
from arvis_scale.models.weight_files import check_fits

OBJECTIVE_NAME = "objective.safetensors"


def save_objective(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write an objective's weights into `folder`, whole or not at all."""
    with whole_file(folder / OBJECTIVE_NAME) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary)


def check_initial_weights(objective: Objective, config: RunConfig) -> None:
    """Raise `ValueError` when `initial_weights` are missing or do not fit; `objective` may be on meta."""
    if config.initial_weights is None:
        return
    path = Path(config.initial_weights) / OBJECTIVE_NAME
    if not path.is_file():
        raise ValueError(
            f"initial_weights={config.initial_weights} has no {OBJECTIVE_NAME}; name a folder of `weights import`"
        )
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        stored = {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in names}
    check_fits(stored, objective.state_dict(), source=str(path), model=f"this {config.objective}")


def load_initial_weights(objective: Objective, config: RunConfig) -> None:
    """Fill `objective` with the run's `initial_weights`, where it has any."""
    if config.initial_weights is not None:
        check_initial_weights(objective, config)
        objective.load_state_dict(load_file(Path(config.initial_weights) / OBJECTIVE_NAME))
