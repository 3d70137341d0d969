"""Names of sizes, derived sizes, and exact parameter counts."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from arvis_scale.models.build import OBJECTIVES, build_objective
from arvis_scale.models.digpt import tap_layers
from arvis_scale.models.objective import Objective
from arvis_scale.models.presets import PRESETS, encoder_size


def build_without_memory(name: str, **arguments: Any) -> Objective:
    with torch.device("meta"):
        return build_objective(name, **arguments)


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_xtra_counts_of_b16_at_256_pixels_are_the_released() -> None:
    model = build_without_memory("xtra", preset="B", image_size=256, patch_size=16)
    parts = [num_parameters(getattr(model, part)) for part in ("encoder", "projection", "predictor", "heads")]
    assert parts == [85_843_200, 6_295_552, 56_901_120, 151_013_376]
    assert num_parameters(model) == 300_053_248


def test_xtra_counts_of_h14_at_224_pixels_are_the_released() -> None:
    model = build_without_memory("xtra", preset="H", image_size=224, patch_size=14)
    parts = [num_parameters(getattr(model, part)) for part in ("encoder", "projection", "predictor", "heads")]
    assert parts == [630_762_240, 9_835_520, 39_553_280, 184_867_200]
    assert num_parameters(model) == 865_018_240


def test_digpt_counts_of_b16_are_the_released() -> None:
    model = build_without_memory(
        "digpt", preset="B", image_size=224, patch_size=16, teacher_width=1024, teacher_grid=16
    )
    assert num_parameters(model.encoder) == 85_645_824
    assert num_parameters(model) == 167_536_128


def test_aim_head_at_the_published_trunks_is_the_published() -> None:
    for preset in ("0.6B", "1B", "3B", "7B"):
        model = build_without_memory("aim", preset=preset, image_size=224, patch_size=14)
        weights = [tuple(block.mlp.fc1.weight.shape) for block in model.head.blocks]
        assert weights == [(8192, 2048)] * 12


@pytest.mark.parametrize("options", [{}, {"head_depth": 0}, {"head_depth": 3, "head_width": 20, "head_expansion": 2}])
def test_aim_head_is_as_deep_and_wide_as_asked(options: dict[str, int]) -> None:
    model = build_without_memory("aim", preset="micro", image_size=16, patch_size=4, options=options)
    depth, width, expansion = (options.get(key, derived) for key, derived in zip(AIM_HEAD, (2, 88, 4), strict=True))
    blocks = depth * (2 * width + 2 * expansion * width**2)  # a norm and two linear maps without biases
    ends = (64 + 1) * width + 2 * width + (width + 1) * 3 * 4**2
    assert num_parameters(model.head) == blocks + ends


AIM_HEAD = ("head_depth", "head_width", "head_expansion")


@pytest.mark.parametrize(("preset", "millions"), [("0.6B", 681), ("1B", 1209), ("3B", 2720), ("7B", 6445)])
def test_aim_trunks_are_as_large_as_their_names(preset: str, millions: int) -> None:
    size = PRESETS[preset]
    model = build_without_memory("aim", preset=preset, image_size=224, patch_size=14)
    blocks = size.depth * (12 * size.width**2 + 4 * size.width)  # no biases, two norms
    patches = 3 * 14**2 * size.width + size.width
    assert num_parameters(model.encoder) == blocks + patches + 4 * size.width  # norms after patches and at the end
    assert round(num_parameters(model.encoder) / 1e6) == millions


@pytest.mark.parametrize(
    ("preset", "patch_size", "architecture"),
    [
        ("Ti", 16, "vit_tiny_patch16_224"),
        ("S", 16, "vit_small_patch16_224"),
        ("B", 16, "vit_base_patch16_224"),
        ("L", 16, "vit_large_patch16_224"),
        ("H", 14, "vit_huge_patch14_224"),
        ("g", 14, "vit_giant_patch14_224"),
    ],
)
def test_mae_encoder_has_timms_parameters_but_for_fixed_positions(
    preset: str, patch_size: int, architecture: str
) -> None:
    encoder = build_without_memory("mae", preset=preset, image_size=224, patch_size=patch_size).encoder
    with torch.device("meta"):
        vit = timm.create_model(architecture, num_classes=0)
    positions = ((224 // patch_size) ** 2 + 1) * PRESETS[preset].width
    assert num_parameters(encoder) + positions == num_parameters(vit)


def test_mae_encoder_of_b16_is_digpts_with_a_final_norm() -> None:
    encoder = build_without_memory("mae", preset="B", image_size=224, patch_size=16).encoder
    assert num_parameters(encoder) == 85_645_824 + 2 * 768


@pytest.mark.parametrize(("preset", "millions"), [("igpt-L", 1362), ("igpt-XL", 6801)])
def test_igpt_counts_are_the_published(preset: str, millions: int) -> None:
    """Millions, cut, of the decoder with its embeddings at 32 x 32; the linear map to colors is not among them."""
    model = build_without_memory("igpt", preset=preset, image_size=32, patch_size=1)
    assert num_parameters(model.encoder) // 10**6 == millions


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_preset_builds_every_objective(name: str, preset: str) -> None:
    model = build_without_memory(
        name, preset=preset, image_size=224, patch_size=14 if name != "digpt" else 16, **TEACHER.get(name, {})
    )
    assert num_parameters(model.encoder) >= 12 * PRESETS[preset].depth * PRESETS[preset].width ** 2 * 0.99


TEACHER: dict[str, dict[str, int]] = {"digpt": {"teacher_width": 1024, "teacher_grid": 16}}


def test_taps_are_spread_over_the_second_half() -> None:
    assert tap_layers(12) == [6, 8, 10, 12]
    assert tap_layers(24) == [12, 16, 20, 24]
    assert tap_layers(4) == [2, 3, 4, 4]
    assert tap_layers(1) == [1, 1, 1, 1]


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="preset 'micr' is not known; did you mean 'micro'"):
        encoder_size("micr")
    with pytest.raises(ValueError, match="did you mean 'Ti'"):
        encoder_size("TI")


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("xtr", {}, r"objective 'xtr' is not known \(did you mean 'xtra'"),
        ("xtra", {"options": {"block_sid": 2}}, r"xtra has no option 'block_sid' \(did you mean 'block_side'"),
        ("xtra", {"options": {"block_side": 3}}, "block_side=3 does not divide the grid of 4 x 4"),
        ("xtra", {"options": {"block_side": 4}}, "block_side=4 makes the image one block"),
        ("xtra", {"options": {"block_side": 2, "predictor_heads": 5}}, "num_heads=5 does not divide width=32"),
        ("xtra", {"options": {"block_side": 2, "drop_path": 1.0}}, "drop_path=1.0 must lie between 0 and 1"),
        ("xtra", {"options": {"block_side": 2, "blocks_ahead": 4}}, "blocks_ahead=4 must lie between 1 and 3"),
        ("xtra", {"options": {"block_side": 2, "blocks_ahead": 0}}, "blocks_ahead=0 must lie between 1 and 3"),
        ("xtra", {"options": {"block_side": 2, "block_orders": 5}}, "block_orders=5 must lie between 1 and 4"),
        ("xtra", {"options": {"block_side": 2, "loss": "l2"}}, "loss='l2' is not known; one of mse, l1"),
        ("aim", {"patch_size": 5}, "patch_size=5 does not divide image_size=16"),
        ("aim", {"patch_size": 16}, "patch_size=16 makes the image one patch"),
        ("digpt", {}, "give teacher_width and teacher_grid"),
        ("digpt", {"options": {"segment_side": 3}, "teacher_width": 8, "teacher_grid": 4}, "segment_side=3 does not"),
        ("digpt", {"options": {"segment_side": 4}, "teacher_width": 8, "teacher_grid": 4}, "image one segment"),
        ("digpt", {"options": {"segment_side": 1}, "teacher_width": 8, "teacher_grid": 6}, "teacher_grid=6 cannot"),
        (
            "digpt",
            {"options": {"segment_side": 2, "decoders": ["generativ"]}, "teacher_width": 8, "teacher_grid": 4},
            r"decoders=\['generativ'\] must name",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(name: str, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as raised:
        build_objective(name, **{"preset": "nano", "image_size": 16, "patch_size": 4, **arguments})
    assert "\n" not in str(raised.value)
