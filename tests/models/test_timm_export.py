"""Encoders that timm loads, with the same features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from arvis_scale.models.build import build_objective
from arvis_scale.models.encoder import Encoder
from arvis_scale.models.presets import PRESETS
from arvis_scale.models.timm_export import check_exportable, check_reproduced, timm_config, timm_state, transfer_mask

OPTIONS: dict[str, dict[str, Any]] = {"xtra": {"block_side": 2}, "digpt": {"segment_side": 2}, "aim": {}, "mae": {}}


def encoder_of(name: str, perturb: Callable[..., None], preset: str = "nano") -> Encoder:
    teacher = {"teacher_width": 8, "teacher_grid": 4} if name == "digpt" else {}
    torch.manual_seed(0)
    sizes = {"preset": preset, "image_size": 32, "patch_size": 8}
    objective = build_objective(name, **sizes, **teacher, options=OPTIONS[name])
    perturb(objective)
    return check_exportable(objective.encoder).eval()


def as_timm(encoder: Encoder) -> Any:
    import timm

    config = timm_config(encoder)
    model = timm.create_model(config["architecture"], num_classes=0, **config["model_args"])
    model.load_state_dict(timm_state(encoder))
    return model.eval()


@pytest.mark.parametrize("name", sorted(OPTIONS))
@torch.no_grad()
def test_timm_gives_the_same_features(name: str, perturb: Callable[..., None]) -> None:
    encoder = encoder_of(name, perturb)
    model, mask = as_timm(encoder), transfer_mask(encoder)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    [expected] = encoder.layer_outputs(images, [encoder.depth])
    got = model.forward_features(images, attn_mask=mask)[:, model.num_prefix_tokens :]
    torch.testing.assert_close(got, encoder.norm(expected), atol=1e-5, rtol=1e-5)
    assert (mask is not None) == (name == "xtra")
    # What our probes read.
    arguments = {"norm": False, "output_fmt": "NLC", "intermediates_only": True, "attn_mask": mask}
    [before_norm] = model.forward_intermediates(images, indices=1, **arguments)
    torch.testing.assert_close(before_norm, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_timm_gives_the_same_class_token(perturb: Callable[..., None]) -> None:
    encoder = encoder_of("digpt", perturb)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    [expected] = encoder(images)  # patches, then the class token
    torch.testing.assert_close(as_timm(encoder).forward_features(images)[:, 0], expected[:, -1], atol=1e-5, rtol=1e-5)


def test_a_model_that_computes_something_else_is_noticed(perturb: Callable[..., None]) -> None:
    encoder = encoder_of("xtra", perturb)
    model = as_timm(encoder)
    assert check_reproduced(encoder, model) < 1e-5
    model.norm = nn.Identity()
    with pytest.raises(ValueError, match=r"timm's features differ from the encoder's by \d"):
        check_reproduced(encoder, model)


def test_transfer_mask_lets_a_patch_see_its_own_and_earlier_blocks(perturb: Callable[..., None]) -> None:
    mask = transfer_mask(encoder_of("xtra", perturb))
    assert mask is not None
    for i in range(16):
        for j in range(16):
            block_i, block_j = (2 * (place // 8) + (place % 4) // 2 for place in (i, j))
            assert mask[i, j] == (block_i >= block_j)


@pytest.mark.parametrize("preset", ["Ti", "B", "g"])
def test_every_shape_of_a_preset_is_timms(preset: str) -> None:
    import timm

    with torch.device("meta"):
        encoder = build_objective("aim", preset=preset, image_size=224, patch_size=14).encoder
        config = timm_config(check_exportable(encoder))
        model = timm.create_model(config["architecture"], num_classes=0, **config["model_args"])
    expected = {name: tensor.shape for name, tensor in timm_state(check_exportable(encoder)).items()}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == expected
    assert model.blocks[0].mlp.fc1.out_features == PRESETS[preset].mlp_hidden


def test_an_encoder_of_pixels_is_refused_with_what_to_do() -> None:
    with torch.device("meta"):
        encoder = build_objective("igpt", preset="nano", image_size=32, patch_size=8).encoder
    with pytest.raises(ValueError, match="timm has no model that computes a PixelEncoder; export with --format saf"):
        check_exportable(encoder)
