"""The teacher that a configuration names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from arvis_scale.atomic import read_json
from arvis_scale.config import TeacherConfig
from arvis_scale.models.fetch import FetchedWeights, read_fetched
from arvis_scale.models.teachers.open_clip_teacher import from_open_clip, open_clip_shape
from arvis_scale.models.teachers.pixel_teacher import PixelTeacher, pixel_shape
from arvis_scale.models.teachers.teacher import Teacher, TeacherShape
from arvis_scale.models.teachers.timm_teacher import TIMM_FOLDER, from_timm, timm_shape
from arvis_scale.models.teachers.vq_teacher import from_vq, vq_shape

# Written by `weights export` beside an encoder whose attention is not full.
MASK_FILE = "attention_mask.safetensors"
TIMM_WEIGHTS = "model.safetensors"  # as timm's own folders call them


def teacher_shape(config: TeacherConfig, *, image_size: int, patch_size: int) -> TeacherShape:
    """Return the shape of the teacher's tokens without reading its weights; errors as `load_teacher`.

    `image_size`, `patch_size`: the student's, in pixels; raw pixels are cut as the student cuts them.
    """
    if config.kind == "pixels":
        return pixel_shape(image_size, patch_size)
    config, _ = resolve(config)
    assert config.checkpoint is not None
    if config.kind == "vq":
        return vq_shape(config.checkpoint)
    if config.kind == "timm":
        return timm_shape(_architecture(config))
    return open_clip_shape(config.checkpoint, config.architecture)


def load_teacher(config: TeacherConfig, *, image_size: int, patch_size: int, device: torch.device) -> Teacher:
    """Load the frozen teacher onto `device`; nothing is downloaded, and fetched weights must have their hash.

    Raises `ValueError` for what is missing, damaged or does not fit together.
    """
    if config.kind == "pixels":
        return PixelTeacher(image_size=image_size, patch_size=patch_size, device=device)
    config, fetched = resolve(config)
    if fetched:
        fetched.verify()
    assert config.checkpoint is not None
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[teacher_precision(config, device)]
    if config.kind == "vq":
        return from_vq(config.checkpoint, device=device, dtype=dtype)
    if config.kind == "timm":
        return from_timm(config.checkpoint, architecture=_architecture(config), device=device, dtype=dtype)
    return from_open_clip(config.checkpoint, architecture=config.architecture, device=device, dtype=dtype)


def teacher_precision(config: TeacherConfig, device: torch.device) -> str:
    """Return fp32 or bf16: bf16 on a GPU and fp32 on a CPU unless the configuration says otherwise."""
    if config.kind == "pixels":
        return "fp32"
    return config.precision or ("bf16" if device.type == "cuda" else "fp32")


def resolve(config: TeacherConfig) -> tuple[TeacherConfig, FetchedWeights | None]:
    """Return the configuration with file and architecture of a folder of weights, and what was fetched.

    That is a folder of `weights fetch`, or one of timm's own, such as `weights export` writes.

    Raises `ValueError` when the weights do not exist or are not what the configuration says.
    """
    path = Path(config.checkpoint or "")
    if config.checkpoint is None or not path.exists():
        raise ValueError(f"teacher.checkpoint={config.checkpoint} does not exist; name a local file or folder")
    fetched = read_fetched(path)
    if fetched is None:
        return (_in_timm_folder(config, path) if config.kind == "timm" and path.is_dir() else config), None
    if fetched.kind != config.kind:
        raise ValueError(f"{path} holds {fetched.name}; set teacher.kind={fetched.kind}, it is {config.kind}")
    if config.architecture not in (None, fetched.architecture):
        raise ValueError(f"{path} holds {fetched.architecture}, not teacher.architecture={config.architecture}")
    if fetched.kind == "open_clip":  # the folder says more than architecture and file: statistics and activation
        return replace(config, architecture=None), fetched
    return replace(config, checkpoint=str(fetched.file), architecture=fetched.architecture), fetched


def _in_timm_folder(config: TeacherConfig, folder: Path) -> TeacherConfig:
    """Return the configuration with file and architecture of one of timm's folders (`config.json` and weights)."""
    if not (folder / "config.json").is_file():
        return config
    said = read_json(folder / "config.json", newest_schema=None)
    if not isinstance(said.get("architecture"), str):
        raise ValueError(f"{folder / 'config.json'} names no architecture of timm's; is {folder} one of its folders?")
    if not (folder / TIMM_WEIGHTS).is_file():
        raise ValueError(f"{folder} has no {TIMM_WEIGHTS}; save its weights as that")
    if config.architecture is not None:
        raise ValueError(f"{folder} says itself what it holds; leave teacher.architecture={config.architecture} out")
    if (folder / MASK_FILE).exists():
        raise ValueError(
            f"{folder} holds an encoder with an attention mask ({MASK_FILE}), which timm's models leave out; take a "
            "teacher with full attention"
        )
    return replace(config, checkpoint=str(folder / TIMM_WEIGHTS), architecture=f"{TIMM_FOLDER}{folder}")


def _architecture(config: TeacherConfig) -> str:
    if config.architecture is None:
        raise ValueError(
            f"teacher.kind=timm needs teacher.architecture=, the timm name of what {config.checkpoint} holds, "
            "e.g. vit_base_patch16_224.dino"
        )
    if not Path(config.checkpoint or "").is_file():
        raise ValueError(f"teacher.checkpoint={config.checkpoint} is no file of timm weights")
    return config.architecture
