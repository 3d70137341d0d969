"""The trained encoder, taken out of the engine in full precision."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from arvis_scale.atomic import whole_file
from arvis_scale.engine.deepspeed_here import DeepSpeedEngine, safe_get_full_fp32_param
from arvis_scale.models.encoder import Encoder


def consolidated_encoder(engine: DeepSpeedEngine) -> dict[str, Tensor]:
    """Return the encoder's parameters by name, fp32 on CPU, from the optimizer's master weights.

    Every process must call it: under ZeRO-3 each parameter is gathered from all of them.
    """
    weights = {}
    for name, parameter in engine.module.encoder.named_parameters():
        full = safe_get_full_fp32_param(parameter)
        assert full is not None, f"DeepSpeed holds no master weight of {name}"
        weights[name] = full.detach().float().cpu().clone()
    return weights


def save_encoder(weights: dict[str, Tensor], path: Path) -> None:
    """Write the encoder as safetensors, whole or not at all."""
    with whole_file(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary)


def load_encoder(encoder: Encoder, path: Path) -> Encoder:
    """Fill `encoder` with the weights that `save_encoder` wrote; `ValueError` when they do not fit."""
    weights = load_file(path)
    expected = dict(encoder.named_parameters())
    if weights.keys() != expected.keys():
        odd = sorted(weights.keys() ^ expected.keys())[0]
        raise ValueError(f"{path} does not fit the run's encoder: parameter {odd!r} is on one side only")
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(weights[name])
    return encoder
