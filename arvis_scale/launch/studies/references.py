"""The reference runs of a study: what its probes give on raw pixels, and on encoders that were never trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from arvis_scale.config import OBJECTIVES, ParallelConfig, RunConfig, leaves_of
from arvis_scale.launch.studies.expansion import PlannedRun
from arvis_scale.launch.studies.names import joined_name

# What cannot change an untrained encoder, nor its probe. iGPT's palette comes from the images, so that there the data
# are its part too.
_WITHOUT_EFFECT = (
    "name",
    "output",
    "schema_version",
    "global_batch_size",
    "micro_batch_size",
    "optimizer.",
    "parallel.",
    "log.",
    "teacher.",
)
# In every name, iGPT's images in those of iGPT: a study keeps its references when it gets more seeds or more images.
_NAMED = ("unique_images", "seed")


def reference_runs(runs: Sequence[PlannedRun], folder: Path) -> list[PlannedRun]:
    """Return one untrained run for every different untrained encoder and probe among `runs`, and the raw pixels.

    They are named `untrained-METHOD-PRESET-SEED` and `raw-pixels`, with the keys that tell several of the name apart.
    """
    untrained = [_untrained(run.config) for run in runs]
    groups: dict[tuple[str, str], list[RunConfig]] = {}
    for config in untrained:
        groups.setdefault((config.method_name, config.preset), []).append(config)
    named = []
    for (method, preset), configs in groups.items():
        named += _named_apart(configs, _untrained_keys, folder, "untrained", method, preset)
    pixels = _named_apart(untrained, _raw_pixel_keys, folder, "raw-pixels")
    for config in (*named, *pixels):
        config.validate()
    return [
        *(PlannedRun("train", config) for config in named),
        *(PlannedRun("raw_pixels", config) for config in pixels),
    ]


def _untrained(config: RunConfig) -> RunConfig:
    """Return `config` without training: one process, no images, random weights."""
    reads_images = config.objective == "igpt"
    return replace(
        config,
        samples_seen=0,
        unique_images=config.unique_images if reads_images else None,
        initial_weights=None,
        parallel=ParallelConfig(),
    )


def _untrained_keys(config: RunConfig) -> dict[str, Any]:
    others = [f"{objective}." for objective in OBJECTIVES if objective != config.objective]
    unread = (*_WITHOUT_EFFECT, *others, "data.num_workers" if config.objective == "igpt" else "data.")
    return {key: value for key, value in leaves_of(config).items() if not key.startswith(unread)}


def _raw_pixel_keys(config: RunConfig) -> dict[str, Any]:
    values = leaves_of(config)
    read = ("image_size", "probe_data.shards", "probe_data.train_split", "probe_data.test_split")
    return {key: values[key] for key in (*read, "probe_data.train_images")}


def _named_apart(
    configs: Sequence[RunConfig], keys_of: Callable[[RunConfig], dict[str, Any]], folder: Path, *prefix: str
) -> list[RunConfig]:
    """Return the first config of each different `keys_of(config)`, named after `prefix` and the keys that differ."""
    different: dict[str, RunConfig] = {}
    for config in configs:
        different.setdefault(repr(keys_of(config)), config)
    chosen = [(config, keys_of(config)) for config in different.values()]
    apart = _telling_apart([keys for _, keys in chosen])
    placed = []
    for config, keys in chosen:
        name = joined_name({key: keys[key] for key in apart}, *prefix)
        placed.append(replace(config, name=name, output=str(folder / "runs" / name)))
    return placed


def _telling_apart(several: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys of the names of `several` runs: of the others those alone without which two would be one name."""
    reads_images = several[0].get("objective") == "igpt"
    names = [key for key in _NAMED if key in several[0] and (key != "unique_images" or reads_images)]
    for key in several[0]:
        told, more = (
            len({repr([keys[name] for name in tried]) for keys in several}) for tried in (names, [*names, key])
        )
        if more > told:
            names.append(key)
    return names
