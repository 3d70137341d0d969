"""Whether the run in a folder is the one that a configuration describes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from arvis_scale.atomic import read_json
from arvis_scale.config import RunConfig, build_config, load_yaml
from arvis_scale.data.selection import Selection
from arvis_scale.engine.run_folder import SCHEMA_VERSION, RunFolder

# What may change between two starts of the same run: how it is spread, where its files are, what it prints and is
# probed on, not what it computes. Shards may move; that they are the same is checked by their content.
FREE_KEYS = (
    "name",
    "output",
    "micro_batch_size",
    "parallel.",
    "checkpoints.",
    "guards.",
    "log.",
    "profile.",
    "probe_data.",
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
    return build_config(load_yaml(folder.config), {}, str(folder.config))


def differences(before: RunConfig, now: RunConfig) -> list[tuple[str, Any, Any]]:
    """Return the keys whose values differ, with both, but for the free ones."""
    earlier = _leaves(asdict(before))
    return [
        (key, earlier.get(key), value)
        for key, value in _leaves(asdict(now)).items()
        if not key.startswith(FREE_KEYS) and value != earlier.get(key)
    ]


def _leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            leaves.update(_leaves(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
