"""Whether a study that tunes chooses its runs by the very images that its probe is scored on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from arvis_scale.config import RunConfig
from arvis_scale.config.data import HELD_OUT
from arvis_scale.data.selection import validation_split_of
from arvis_scale.data.shards import ShardedDataset, open_shards
from arvis_scale.launch.studies.study import Study


def tuned_on_test_images(study: Study) -> str | None:
    """Return one line that says on which images a study tunes and is scored as well; None where they are different.

    Opens the index of each of its shards once.
    """
    opened = cache(open_shards)
    configs = {repr((run.config.data, run.config.probe_data)): run.config for run in study.runs if run.cell is not None}
    for config in configs.values():
        shards = _scored_and_validated_on(config, opened)
        if shards is not None:
            return (
                f"tune chooses the runs with the lowest loss on split {config.probe_data.test_split!r} of {shards}, "
                f"and the probe is scored on the same images; data.validation_split={HELD_OUT} keeps them out of it"
            )
    return None


def _scored_and_validated_on(config: RunConfig, opened: Callable[[str], ShardedDataset]) -> str | None:
    """Return the shards whose split gives both the validation loss and the probe's accuracy; None where none does."""
    data, probe = config.data, config.probe_data
    if probe.shards is None:
        return None
    validated = [data.validation_shards] if data.streaming else [data.shards, *(part.shards for part in data.mix)]
    scored = opened(probe.shards).content_hash
    for shards in filter(None, validated):
        dataset = opened(shards)
        if dataset.content_hash == scored and validation_split_of(data, dataset) == probe.test_split:
            return shards
    return None
