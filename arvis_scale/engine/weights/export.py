"""The trained encoder as a file."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from arvis_scale.atomic import whole_file
from arvis_scale.models.encoder import Backbone
from arvis_scale.models.weight_files import check_fits


def save_encoder(weights: dict[str, Tensor], path: Path) -> None:
    """Write the encoder as safetensors, whole or not at all."""
    with whole_file(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary)


def load_encoder(encoder: Backbone, path: Path) -> Backbone:
    """Fill `encoder` with the weights that `save_encoder` wrote; `ValueError` when they do not fit."""
    weights = load_file(path)
    check_fits(weights, encoder.state_dict(), source=str(path), model="the run's encoder")
    encoder.load_state_dict(weights)
    return encoder
