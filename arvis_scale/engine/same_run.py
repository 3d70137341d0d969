"""Whether the run in a folder is the one that a configuration describes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from arvis_scale.atomic import read_json
from arvis_scale.config import ConfigBuilder, RunConfig, leaves_of, load_yaml
from arvis_scale.data.selection import Selection
from arvis_scale.engine.run_folder import SCHEMA_VERSION, RunFolder

# What may change between two starts of the same run: how it is spread, where its files are, what it prints and is
# probed on, not what it computes. Shards may move; that they are the same is checked by their content. A branch trains
# as it would alone, so that its parent may move too.
FREE_KEYS = (
    "name",
    "output",
    "parent",
    "micro_batch_size",
    "parallel.",
    "checkpoints.",
    "guards.",
    "log.",
    "profile.",
    "probe_data.",
    "finetune.",
    "data.shards",
    "data.mix",
    "data.num_workers",
    "data.num_read_retries",
    "data.on_bad_sample",
)


def check_same_run(config: RunConfig, folder: RunFolder) -> None:
    """Raise `ValueError` when `folder` was begun with another value of a key that is not free."""
    if not folder.config.is_file():
        raise ValueError(f"{folder.config} is missing beside the run's other files; choose another output=")
    for key, before, now in differences(saved_config(folder), config):
        raise ValueError(
            f"{folder.path} holds another run: {key} was {before!r}, now {now!r}; "
            f"choose another output=, or remove {folder.path} to begin anew"
        )


def check_same_images(images: Selection, folder: RunFolder) -> None:
    """Raise `ValueError` when the run of `folder` was begun on images of other content."""
    if not folder.environment.is_file():
        return
    before = read_json(folder.environment, newest_schema=SCHEMA_VERSION).get("pretrain_data")
    if before is not None and before["hash"] != images.dataset.content_hash:
        raise ValueError(
            f"{folder.path} was begun on other images: {images.dataset.folder} has content hash "
            f"{images.dataset.content_hash[:12]}, then it was {before['hash'][:12]}; choose another output="
        )
    if before is not None and before["subset"] != images.subset.hash:
        raise ValueError(
            f"{folder.path} was begun on another subset of its images: {images.subset.name} has hash "
            f"{images.subset.hash[:12]}, then it was {before['subset'][:12]}; choose another output="
        )


def saved_config(folder: RunFolder) -> RunConfig:
    """Read a run's config.yaml."""
    return _builder().build(load_yaml(folder.config), str(folder.config))


@cache
def _builder() -> ConfigBuilder:
    return ConfigBuilder({})  # one for all, since the runs of a study have most of their values in common


def lasting(config: RunConfig, folder: RunFolder) -> RunConfig:
    """Return `config` as config.yaml is to keep it for a run that goes on.

    How long this start may take, what it prints and what it profiles are asked of this start alone.
    """
    saved = saved_config(folder)
    guards = replace(config.guards, time_limit_minutes=saved.guards.time_limit_minutes)
    return replace(config, log=saved.log, profile=saved.profile, guards=guards)


def differences(before: RunConfig, now: RunConfig) -> list[tuple[str, Any, Any]]:
    """Return the keys whose values differ, with both, but for the free ones."""
    earlier = leaves_of(before)
    return [
        (key, earlier[key], value)
        for key, value in leaves_of(now).items()
        if not key.startswith(FREE_KEYS) and value != earlier[key]
    ]
