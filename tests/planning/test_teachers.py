"""What a teacher costs, without its weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from arvis_scale.config import TeacherConfig
from arvis_scale.planning.teachers import teacher_cost


def test_pixels_cost_nothing() -> None:
    assert teacher_cost(TeacherConfig(kind="pixels")).params == 0


def test_the_paper_s_teacher(tmp_path: Path) -> None:
    """OpenCLIP's ViT-H-14 image tower has 632M parameters (open_clip's model profile: 632.08M, 334.59 GFLOPs)."""
    weights = tmp_path / "weights.pt"
    weights.touch()
    cost = teacher_cost(TeacherConfig(kind="open_clip", checkpoint=str(weights), architecture="ViT-H-14"))
    assert cost.params == 632_076_800
    # All tokens are projected here, not the class token alone: half a percent more.
    assert cost.forward_flops == pytest.approx(334.59e9, rel=0.01)


def test_timm(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    weights.touch()
    cost = teacher_cost(TeacherConfig(kind="timm", checkpoint=str(weights), architecture="vit_tiny_patch16_224"))
    assert cost.params == 5_524_416  # without its classifier of 192 x 1,000 weights and 1,000 biases
    assert cost.forward_flops == pytest.approx(2.5e9, rel=0.05)
