"""A run's stored teacher tokens: what they were made with, whether that is what the run asks for, and their reading."""

from __future__ import annotations

from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np

from arvis_scale.config import RunConfig, TeacherConfig
from arvis_scale.data.selection import Selection
from arvis_scale.data.teacher_tokens import TeacherTokens
from arvis_scale.data.token_manifest import TRAIN, VALIDATION, TokenManifest, read_complete_manifest
from arvis_scale.models.teachers import TeacherShape
from arvis_scale.models.teachers.identity import teacher_identity

# Keys of `data` that decide which pixels of an image the teacher sees.
_VIEW_KEYS = ("crop_scale_min", "crop_scale_max", "crop_ratio_min", "crop_ratio_max", "horizontal_flip", "decoding")
_SHOWN_DIGITS = len("sha256:") + 12


def manifest_of(config: RunConfig) -> TokenManifest | None:
    """Return what the run's token folder holds; None for a run that has none.

    Raises `ValueError` when the folder is missing, damaged or not complete.
    """
    if config.objective != "digpt" or config.teacher.tokens is None:
        return None
    return read_complete_manifest(Path(config.teacher.tokens))


def shape_of_tokens(manifest: TokenManifest) -> TeacherShape:
    """Return the shape of the tokens: a class token and a square grid."""
    return TeacherShape(manifest.width, isqrt(manifest.num_tokens - 1))


def stored_tokens(config: RunConfig, part: str) -> TeacherTokens | None:
    """Open the run's tokens of `TRAIN` or `VALIDATION` images; None for a run that has none."""
    manifest = manifest_of(config)
    return None if manifest is None else _open(config, manifest, part)


def views_of(config: RunConfig, images: Selection, teacher_kind: str) -> dict[str, Any]:
    """Return what decides which pixels the teacher sees of which images, by the run's keys."""
    return {
        "image_size": config.image_size,
        "patch_size": config.patch_size if teacher_kind == "pixels" else None,  # other teachers have their own
        **{f"data.{key}": getattr(config.data, key) for key in _VIEW_KEYS},
        "data.shards": f"sha256:{images.dataset.content_hash}",
        "data.train_split": images.train_split.name,
        "data.validation_split": images.validation_split.name,
    }


def identity_of(teacher: TeacherConfig) -> dict[str, Any]:
    """Return which teacher it is, by the run's keys."""
    identity = teacher_identity(teacher)
    checkpoint = identity["checkpoint"]
    return {
        "teacher.kind": identity["kind"],
        "teacher.checkpoint": checkpoint and f"sha256:{checkpoint}",
        "teacher.architecture": identity["architecture"],
    }


def check_tokens(config: RunConfig, images: Selection) -> None:
    """Raise `ValueError`, naming the key, when a run's stored tokens are not those of its images, views and teacher.

    What the run says of its teacher must be true; what it leaves out is taken from the folder.
    """
    manifest = manifest_of(config)
    if manifest is None:
        return
    folder = config.teacher.tokens
    made_with = manifest.made_with
    asked = {**_said_of(config.teacher), **views_of(config, images, made_with.get("teacher.kind", ""))}
    for key, value in asked.items():
        if made_with.get(key) != value:
            before, now = _shown(made_with.get(key)), _shown(value)
            raise ValueError(
                f"teacher.tokens={folder} was made with {key}={before}, the run has {now}; "
                "change it, or run `shards tokenize` with this run's configuration"
            )
    for part, samples in ((TRAIN, images.training_images()), (VALIDATION, images.validation_indices)):
        tokens = _open(config, manifest, part)
        num_missing = int(np.count_nonzero(~tokens.holds(samples)))
        if num_missing:
            raise ValueError(
                f"teacher.tokens={folder} has none for {num_missing:,} of the run's {len(samples):,} {part} images; "
                "run `shards tokenize` with its unique_images and data.subset (a larger one serves smaller ones)"
            )
        tokens.check_files()


def views_remark(config: RunConfig, manifest: TokenManifest) -> str:
    """Say how many views of an image are stored, and how often a run of `config` shows them."""
    train = manifest.parts[TRAIN]
    num_images = config.unique_images or train.num_images
    epochs = config.num_steps * config.global_batch_size / num_images
    again = f"; from epoch {train.views} on they come again" if epochs > train.views else ""
    return f"{train.views} stored views of each image for {epochs:,.1f} epochs of {num_images:,} images{again}"


def _open(config: RunConfig, manifest: TokenManifest, part: str) -> TeacherTokens:
    return TeacherTokens(Path(config.teacher.tokens or ""), manifest, part, config.data.num_read_retries)


def _said_of(teacher: TeacherConfig) -> dict[str, Any]:
    """Return what a run with stored tokens says of its teacher; the kind it would have by default says nothing."""
    said: dict[str, Any] = {}
    if teacher.checkpoint is not None:
        said |= identity_of(teacher)
    elif teacher.kind != TeacherConfig.kind:
        said["teacher.kind"] = teacher.kind
    for key in ("architecture", "precision"):
        if getattr(teacher, key) is not None and f"teacher.{key}" not in said:
            said[f"teacher.{key}"] = getattr(teacher, key)
    return said


def _shown(value: Any) -> Any:
    return f"{value[:_SHOWN_DIGITS]}..." if isinstance(value, str) and value.startswith("sha256:") else value
