"""The trained encoder, taken out of the engine in full precision."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from arvis_scale.atomic import whole_file
from arvis_scale.engine.deepspeed_here import DeepSpeedEngine, safe_get_full_fp32_param
from arvis_scale.models.encoder import Backbone
from arvis_scale.models.weight_files import check_fits


def consolidated_encoder(engine: DeepSpeedEngine) -> dict[str, Tensor]:
    """Return the encoder's parameters, from the optimizer's master weights, and its persistent buffers, fp32 on CPU.

    Every process must call it: under ZeRO-3 each parameter is gathered from all of them.
    """
    weights = {}
    for name, parameter in engine.module.encoder.named_parameters():
        full = safe_get_full_fp32_param(parameter)
        assert full is not None, f"DeepSpeed holds no master weight of {name}"
        weights[name] = full.detach().float().cpu().clone()
    for name in engine.module.encoder.state_dict().keys() - weights.keys():
        weights[name] = engine.module.encoder.get_buffer(name).float().cpu().clone()
    return weights


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
