"""What the frozen teacher of D-iGPT costs, found without reading its weights where they are large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from arvis_scale.config import TeacherConfig
from arvis_scale.models.presets import EncoderSize
from arvis_scale.models.teachers.choice import resolve
from arvis_scale.models.teachers.open_clip_teacher import CONFIG_NAME
from arvis_scale.models.teachers.vq_teacher import from_vq
from arvis_scale.planning.costs import Cost, clip_tower_cost
from arvis_scale.planning.flops import forward_flops_per_sample


def teacher_cost(config: TeacherConfig) -> Cost:
    """Return parameters and forward FLOPs per image of a teacher whose configuration and files were found good.

    Pixels and stored tokens cost nothing.
    """
    if config.kind == "pixels" or config.tokens is not None:
        return Cost()
    if config.kind == "open_clip":
        return _open_clip_cost(config)
    if config.kind == "timm":
        return _timm_cost(config)
    assert config.checkpoint is not None, "a configuration without is refused"
    teacher = from_vq(config.checkpoint)
    flops = int(forward_flops_per_sample(teacher, torch.zeros(1, 3, teacher.image_size, teacher.image_size)))
    return Cost(sum(parameter.numel() for parameter in teacher.model.parameters()), flops, flops)


def _open_clip_cost(config: TeacherConfig) -> Cost:
    import open_clip

    path = Path(config.checkpoint or "") / CONFIG_NAME
    if path.is_file():
        model = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
    else:
        model = open_clip.get_model_config(config.architecture)
    vision = model["vision_cfg"]
    width = vision["width"]
    size = EncoderSize(
        width=width,
        depth=vision["layers"],
        num_heads=width // vision.get("head_width", 64),
        mlp_hidden=int(width * vision.get("mlp_ratio", 4.0)),
    )
    return clip_tower_cost(
        size, image_size=vision.get("image_size", 224), patch_size=vision["patch_size"], token_width=model["embed_dim"]
    )


def _timm_cost(config: TeacherConfig) -> Cost:
    import timm

    architecture = resolve(config)[0].architecture
    assert architecture is not None, "a configuration without is refused"
    with torch.device("meta"):
        tower: Any = timm.create_model(architecture, num_classes=0)
        images = torch.empty(1, 3, *tower.patch_embed.img_size)
        flops = int(forward_flops_per_sample(tower.forward_features, images))
    return Cost(sum(parameter.numel() for parameter in tower.parameters()), flops, flops)
