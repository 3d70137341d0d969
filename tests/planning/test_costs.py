"""Closed forms of parameters and FLOPs against the models themselves, and against published numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from arvis_scale.models.build import OBJECTIVES, build_objective
from arvis_scale.models.presets import EncoderSize
from arvis_scale.models.teachers import OpenClipTeacher
from arvis_scale.planning.costs import Cost, clip_tower_cost, objective_cost, total_cost
from arvis_scale.planning.flops import forward_flops_per_sample, training_flops_per_sample

TEACHER = {"teacher_width": 48, "teacher_grid": 8}
SHAPES: dict[str, list[dict[str, Any]]] = {
    "xtra": [
        {"preset": "nano", "image_size": 32, "patch_size": 4, "options": {"block_side": 2}},
        {"preset": "mini", "image_size": 64, "patch_size": 16, "options": {"block_side": 1, "blocks_ahead": 3}},
        {"preset": "S", "image_size": 256, "patch_size": 16},
        {"preset": "B", "image_size": 256, "patch_size": 16, "options": {"drop_path": 0.0}},
        {"preset": "H", "image_size": 224, "patch_size": 14},
    ],
    "aim": [
        {"preset": "nano", "image_size": 32, "patch_size": 4},
        {"preset": "S", "image_size": 224, "patch_size": 14, "options": {"head_depth": 3, "head_expansion": 2}},
        {"preset": "0.6B", "image_size": 224, "patch_size": 14},
    ],
    "digpt": [
        {"preset": "nano", "image_size": 32, "patch_size": 4, "options": {"segment_side": 2}, **TEACHER},
        {"preset": "mini", "image_size": 32, "patch_size": 4, "options": {"segment_side": 4}, **TEACHER},
        {
            "preset": "S",
            "image_size": 224,
            "patch_size": 16,
            "options": {"decoders": ["generative"]},
            "teacher_width": 512,
            "teacher_grid": 16,
        },
        {"preset": "B", "image_size": 224, "patch_size": 16, "teacher_width": 1024, "teacher_grid": 16},
    ],
    "igpt": [
        {"preset": "nano", "image_size": 32, "patch_size": 8, "options": {"resolution": 8, "palette_size": 16}},
        {"preset": "mini", "image_size": 64, "patch_size": 16},
        {"preset": "igpt-S", "image_size": 224, "patch_size": 16},
    ],
    "mae": [
        {"preset": "nano", "image_size": 32, "patch_size": 4, "options": {"mask_ratio": 0.6}},
        {"preset": "S", "image_size": 224, "patch_size": 14},
        {"preset": "B", "image_size": 224, "patch_size": 16},
    ],
}
CASES = [(name, shape) for name, shapes in SHAPES.items() for shape in shapes]
IDS = [f"{name}-{shape['preset']}-{shape['image_size']}" for name, shape in CASES]


def batch_for(name: str, shape: dict[str, Any]) -> dict[str, torch.Tensor]:
    size = shape["image_size"]
    batch = {"images": torch.empty(2, 3, size, size, device="meta"), "sample_seeds": torch.zeros(2, dtype=torch.int64)}
    if name == "digpt":
        batch["teacher_tokens"] = torch.empty(2, 1 + shape["teacher_grid"] ** 2, shape["teacher_width"], device="meta")
    return batch


def test_every_objective_has_a_closed_form_and_shapes_to_check_it() -> None:
    assert set(SHAPES) == set(OBJECTIVES)


@pytest.mark.parametrize(("name", "shape"), CASES, ids=IDS)
def test_parameters_of_each_part_are_the_models(name: str, shape: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = build_objective(name, **shape)
    counted = {
        part: sum(parameter.numel() for parameter in module.parameters()) for part, module in model.named_children()
    }
    assert {part: cost.params for part, cost in objective_cost(name, **shape).items()} == counted
    assert sum(counted.values()) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "shape"), CASES, ids=IDS)
def test_training_flops_are_what_torch_executes(name: str, shape: dict[str, Any]) -> None:
    counted = training_flops_per_sample(lambda: build_objective(name, **shape), batch_for(name, shape))
    assert total_cost(objective_cost(name, **shape)).train_flops == pytest.approx(counted, rel=1e-9)


@pytest.mark.parametrize(("name", "shape"), CASES, ids=IDS)
def test_forward_flops_are_what_torch_executes(name: str, shape: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = build_objective(name, **shape).eval()
    batch = batch_for(name, shape)
    batch["sample_seeds"] = batch["sample_seeds"].to("meta")
    counted = forward_flops_per_sample(lambda _: model(batch), batch["images"])
    assert total_cost(objective_cost(name, **shape)).forward_flops == pytest.approx(counted, rel=1e-9)


@pytest.mark.parametrize(
    ("size", "image_size", "patch_size", "token_width"),
    [(EncoderSize(64, 4, 4, 256), 32, 8, 48), (EncoderSize(1280, 32, 16, 5120), 224, 14, 1024)],
    ids=["small", "ViT-H-14"],
)
def test_a_clip_tower_costs_what_torch_executes(
    size: EncoderSize, image_size: int, patch_size: int, token_width: int
) -> None:
    from open_clip.transformer import VisionTransformer

    with torch.device("meta"):
        tower = VisionTransformer(
            image_size, patch_size, size.width, size.depth, size.num_heads, 4.0, output_dim=token_width
        )
    tower.image_mean = tower.image_std = (0.5, 0.5, 0.5)
    cost = clip_tower_cost(size, image_size=image_size, patch_size=patch_size, token_width=token_width)
    assert cost.params == sum(parameter.numel() for parameter in tower.parameters())
    images = torch.empty(2, 3, image_size, image_size, device="meta")
    counted = forward_flops_per_sample(OpenClipTeacher(tower, device="meta"), images)
    assert cost.train_flops == cost.forward_flops == pytest.approx(counted, rel=1e-9)


def test_published_numbers_of_xtra() -> None:
    """Parameters of the released modules, B/16 at 256 px (methods of arXiv 2411.15648)."""
    parts = objective_cost("xtra", preset="B", image_size=256, patch_size=16)
    assert [cost.params for cost in parts.values()] == [85_843_200, 6_295_552, 56_901_120, 151_013_376]
    assert total_cost(parts).params == 300_053_248


def test_published_number_of_digpt() -> None:
    shape = {"preset": "B", "image_size": 224, "patch_size": 16, "teacher_width": 1024, "teacher_grid": 16}
    assert total_cost(objective_cost("digpt", **shape)).params == 167_536_128


def documented_rows() -> list[list[str]]:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    table = page[page.index("## Parameters and FLOPs") :].split("\n\n")[1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


@pytest.mark.parametrize("row", documented_rows(), ids=lambda row: "-".join(row[:2]).replace(" ", ""))
def test_table_of_the_model_pages_is_computed(row: list[str]) -> None:
    described, preset, encoder, trained, gflops = row
    name, image_size, *patch = described.replace(" px", "").split(", ")
    patch_size = int(patch[0].removeprefix("patch ")) if patch else 4  # iGPT has none
    teacher = {"teacher_width": 1024, "teacher_grid": 16} if name == "digpt" else {}
    parts = objective_cost(name, preset=preset, image_size=int(image_size), patch_size=patch_size, **teacher)
    total = total_cost(parts)
    assert f"{parts['encoder'].params / 1e6:.1f}" == encoder
    assert f"{total.params / 1e6:.1f}" == trained
    assert f"{total.train_flops / 1e9:.0f}" == gflops


def test_costs_add_up() -> None:
    one = Cost(1, 2, 6)
    assert one + one.times(2) == Cost(3, 6, 18) == total_cost({"a": one, "b": one.times(2)})
