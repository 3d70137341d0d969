"""The exported encoder: parameters and persistent buffers, read back into an encoder of the same shape only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from arvis_scale.engine.weights.export import load_encoder, save_encoder
from arvis_scale.models.build import build_objective
from arvis_scale.models.encoder import Backbone


def igpt_encoder(seed: int) -> Backbone:
    torch.manual_seed(seed)
    options = {"resolution": 4, "palette_size": 8}
    encoder = build_objective("igpt", preset="pico", image_size=8, patch_size=1, options=options).encoder
    encoder.palette.copy_(2 * torch.rand(8, 3) - 1)
    return encoder


def test_a_palette_is_saved_and_loaded_with_the_parameters(tmp_path: Path) -> None:
    encoder, other = igpt_encoder(0), igpt_encoder(1)
    images = torch.randn(2, 3, 8, 8)
    expected = encoder.layer_outputs(images, [2])[0]
    assert not torch.equal(other.layer_outputs(images, [2])[0], expected)
    save_encoder(encoder.state_dict(), tmp_path / "encoder.safetensors")
    load_encoder(other, tmp_path / "encoder.safetensors")
    assert torch.equal(other.layer_outputs(images, [2])[0], expected)


def test_an_encoder_without_its_palette_does_not_fit(tmp_path: Path) -> None:
    encoder = igpt_encoder(0)
    save_encoder({name: p.detach() for name, p in encoder.named_parameters()}, tmp_path / "encoder.safetensors")
    with pytest.raises(ValueError, match="encoder.safetensors lacks palette of the run's encoder"):
        load_encoder(encoder, tmp_path / "encoder.safetensors")
