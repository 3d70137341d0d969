"""Branches: runs that go on from a checkpoint of a longer run's constant phase and cool down from there.

A branch is a run of its own. Up to its cool-down it would have trained as its parent did, so it takes the parent's
newest checkpoint before that as its own first one, and goes on from it as any run goes on from its checkpoints.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arvis_scale.atomic import read_json, write_json
from arvis_scale.config import RunConfig
from arvis_scale.data.selection import Selection
from arvis_scale.engine.checkpointing.files import (
    checkpoint_path,
    checkpoints_newest_first,
    find_damage,
    publish,
    refuse_other_layout,
    step_of,
    unfinished_path,
)
from arvis_scale.engine.checkpointing.manifest import read_manifest
from arvis_scale.engine.run_folder import SCHEMA_VERSION, RunFolder
from arvis_scale.engine.same_run import check_same_images, differences, saved_config

_logger = logging.getLogger(__name__)
# What may differ between a branch and its parent, beside what may change between two starts of one run.
_FREE_KEYS = ("samples_seen", "parent")


def check_branch(config: RunConfig, images: Selection) -> None:
    """Raise `ValueError` when a run that has not begun cannot branch from its `parent`, if it has one.

    Cheap: the content of the checkpoint is verified when it is taken.
    """
    if config.parent is None:
        return
    parent = RunFolder(config.parent)
    if not parent.config.is_file():
        raise ValueError(f"parent={config.parent} is no run folder (it has no config.yaml); train it first")
    if parent.path.resolve() == Path(config.output).resolve():
        raise ValueError(f"parent={config.parent} is the run's own folder; choose another output=")
    if config.optimizer.schedule != "warmup_stable_decay" or config.optimizer.warmup_samples is None:
        raise ValueError(
            f"parent={config.parent} needs optimizer.schedule=warmup_stable_decay and optimizer.warmup_samples=N in "
            f"both runs: with any other schedule runs of different lengths share no learning rates"
        )
    before = saved_config(parent)
    for key, theirs, ours in differences(before, config):
        if key not in _FREE_KEYS:
            raise ValueError(
                f"parent={config.parent} is another run: its {key} is {theirs!r}, this one's {ours!r}; only "
                f"{' and '.join(_FREE_KEYS)} may differ"
            )
    check_same_images(images, parent)
    newest = next(_candidates(config, before), None)
    if newest is None:
        raise ValueError(_no_checkpoint(config, before))
    refuse_other_layout(newest, read_manifest(newest).layout, config)


def take_branch_point(config: RunConfig) -> Path | None:
    """Give a run without checkpoints that of its parent which it branches from, and return it; None without a parent.

    Its files are links to the parent's, where the file system has them, and outlive their removal there. branch.json
    notes where they came from.
    """
    if config.parent is None:
        return None
    folder = RunFolder(config.output)
    before = saved_config(RunFolder(config.parent))
    for source in _candidates(config, before):
        if find_damage(source) is None:
            note = {"name": before.name, "path": config.parent, "step": step_of(source)}
            write_json(folder.branch, {"schema_version": SCHEMA_VERSION, **note})
            _logger.info("%s branches from %s", config.output, source)
            return _link(source, folder.checkpoints)
    raise ValueError(_no_checkpoint(config, before))


def last_shared_step(config: RunConfig, parent: RunConfig) -> int:
    """Return the last step at which both runs have the constant learning rate, or still warm up."""
    return min(run.optimizer.cooldown_start(run.num_steps) for run in (config, parent))


def branch_entries(folder: RunFolder) -> dict[str, Any]:
    """Return what result.json says of a run's parent: `parent` (name, path) and `branched_at_step`, or two nulls."""
    if not folder.branch.is_file():
        return {"parent": None, "branched_at_step": None}
    note = read_json(folder.branch, newest_schema=SCHEMA_VERSION)
    return {"parent": {key: note[key] for key in ("name", "path")}, "branched_at_step": note["step"]}


def own_seconds(folder: RunFolder, step: int, seconds: float) -> float:
    """Return how many of the `seconds` that a checkpoint of `step` counts are this run's and not its parent's."""
    return 0.0 if step == branch_entries(folder)["branched_at_step"] else seconds


def _candidates(config: RunConfig, parent: RunConfig) -> Iterator[Path]:
    """Yield the parent's checkpoints that the run could begin with, newest first; their content is not verified."""
    assert config.parent is not None
    for path in checkpoints_newest_first(RunFolder(config.parent).checkpoints):
        if step_of(path) <= last_shared_step(config, parent) and _has_optimizer_state(path):
            yield path


def _has_optimizer_state(checkpoint: Path) -> bool:
    try:
        return read_manifest(checkpoint).has_optimizer_state
    except ValueError:
        return False


def _no_checkpoint(config: RunConfig, parent: RunConfig) -> str:
    assert config.parent is not None
    steps = [str(step_of(path)) for path in checkpoints_newest_first(RunFolder(config.parent).checkpoints)][::-1]
    last = last_shared_step(config, parent)
    return (
        f"parent={config.parent} has no undamaged checkpoint with its optimizer state at or before step {last}, where "
        f"the constant learning rate ends (it has {', '.join(steps) or 'none'}); train it with checkpoints.also_at="
        f"[{last}], or with checkpoints.keep_every=N and checkpoints.keep_optimizer_state=all, or raise samples_seen"
    )


def _link(source: Path, checkpoints: Path) -> Path:
    step = step_of(source)
    unfinished, final = unfinished_path(checkpoints, step, "branch"), checkpoint_path(checkpoints, step)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        shutil.copytree(source, unfinished, copy_function=_link_or_copy)
    except OSError as error:
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error
        raise ValueError(f"{source}, which this run branches from, cannot be taken: {reason}; start again") from error
    publish(unfinished, final)
    return final


def _link_or_copy(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, destination)
