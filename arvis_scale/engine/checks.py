"""The checks that come before anything is launched or written."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from arvis_scale.atomic import read_json
from arvis_scale.config import RunConfig, build_config, load_yaml
from arvis_scale.data.selection import Selection, select_images
from arvis_scale.engine.checkpoint_files import check_checkpoints
from arvis_scale.engine.initial_weights import check_initial_weights
from arvis_scale.engine.run_folder import SCHEMA_VERSION, RunFolder
from arvis_scale.engine.setup import build_of, teacher_shape_of
from arvis_scale.engine.strategy import deepspeed_config
from arvis_scale.evaluation.probe_run import open_probe_data

# What may change between two starts of the same run: how it is spread, where its files are, what it prints and is
# probed on, not what it computes. Shards may move; that they are the same is checked by their content.
_FREE_KEYS = (
    "name",
    "output",
    "micro_batch_size",
    "parallel.",
    "log.",
    "probe_data.",
    "data.shards",
    "data.num_workers",
)


def check_run(config: RunConfig) -> Selection:
    """Raise `ValueError` for a run that cannot be trained; return its images.

    Opens the shards' indexes and builds the model without memory.
    """
    images = select_images(config.data, config.unique_images)
    open_probe_data(config)
    deepspeed_config(config)
    with torch.device("meta"):
        check_initial_weights(build_of(config, teacher_shape_of(config)), config)
    folder = RunFolder(config.output)
    begun = check_checkpoints(
        folder.checkpoints, world_size=config.parallel.processes, strategy=config.parallel.strategy
    )
    if begun or folder.result.exists():
        _check_same_run(config, folder)
        _check_same_images(images, folder)
    return images


def _check_same_run(config: RunConfig, folder: RunFolder) -> None:
    if not folder.config.is_file():
        raise ValueError(f"{folder.config} is missing beside the run's other files; choose another output=")
    before = _leaves(asdict(build_config(load_yaml(folder.config), {}, str(folder.config))))
    now = _leaves(asdict(config))
    for key in now:
        if not key.startswith(_FREE_KEYS) and now[key] != before.get(key):
            raise ValueError(
                f"{folder.path} holds another run: {key} was {before.get(key)!r}, now {now[key]!r}; "
                f"choose another output=, or remove {folder.path} to begin anew"
            )


def _check_same_images(images: Selection, folder: RunFolder) -> None:
    if not folder.environment.is_file():
        return
    before = read_json(folder.environment, newest_schema=SCHEMA_VERSION).get("pretrain_data")
    if before is not None and before["hash"] != images.dataset.content_hash:
        raise ValueError(
            f"{folder.path} was begun on other images: {images.dataset.folder} has content hash "
            f"{images.dataset.content_hash[:12]}, then it was {before['hash'][:12]}; choose another output="
        )


def _leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            leaves.update(_leaves(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
