"""Which checkpoints of a run stay, and what stays of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from arvis_scale.config import CheckpointConfig
from arvis_scale.engine.checkpointing.files import (
    checkpoints_newest_first,
    find_damage,
    flush_folder,
    remove_checkpoint,
    step_of,
)
from arvis_scale.engine.checkpointing.manifest import FileEntry, Manifest, read_manifest, write_manifest
from arvis_scale.engine.checkpointing.writing import write_tensors

# DeepSpeed's files before and after the moments are removed.
STATE, WEIGHTS = "state", "weights"


def prune_checkpoints(folder: Path, config: CheckpointConfig, *, step: int) -> None:
    """Remove what the policy does not keep, now that the checkpoint of `step` is whole.

    Later ones were found damaged, or belong to a course that the run has left, and go.
    """
    checkpoints = checkpoints_newest_first(folder)
    for later in checkpoints:
        if step_of(later) > step:
            remove_checkpoint(later)
    for old in [path for path in checkpoints if step_of(path) <= step][config.keep_last :]:
        if step_of(old) in config.also_at:
            continue
        if not (config.keep_every and step_of(old) % config.keep_every == 0):
            remove_checkpoint(old)
        elif config.keep_optimizer_state != "all":
            remove_optimizer_state(old)


def prune_finished_run(folder: Path, config: CheckpointConfig) -> None:
    """Remove the optimizer state of a run that has completed, where the policy says so; nobody else may be writing."""
    if config.keep_optimizer_state == "until_finished":
        for checkpoint in checkpoints_newest_first(folder):
            if step_of(checkpoint) not in config.also_at:
                remove_optimizer_state(checkpoint)


def remove_optimizer_state(checkpoint: Path) -> None:
    """Take the optimizer's moments out of a checkpoint, leaving the fp32 weights in DeepSpeed's own format.

    A crash on the way leaves it as it was or as it shall be. A damaged checkpoint is left alone, for what it is.
    """
    state = checkpoint / STATE
    # Without the folder nothing is left to do; the check reads every file.
    if not state.exists() or find_damage(checkpoint) is not None:
        return
    manifest = read_manifest(checkpoint)
    if manifest.has_optimizer_state:
        files = {name: entry for name, entry in manifest.files.items() if not name.startswith(f"{STATE}/")}
        files |= _write_weights(state, checkpoint / WEIGHTS)
        flush_folder(checkpoint)
        write_manifest(checkpoint, Manifest(manifest.step, manifest.layout, has_optimizer_state=False, files=files))
        flush_folder(checkpoint)
    shutil.rmtree(state)


def _write_weights(state: Path, weights: Path) -> dict[str, FileEntry]:
    shutil.rmtree(weights, ignore_errors=True)
    weights.mkdir()
    files = {}
    for path in sorted(state.iterdir()):
        files[f"{WEIGHTS}/{path.name}"] = write_tensors(_without_moments(path), weights / path.name)
    flush_folder(weights)
    return files


def _without_moments(path: Path) -> Any:
    """Return the content of one of DeepSpeed's files without the state of the torch optimizer."""
    content = torch.load(path, map_location="cpu", mmap=True, weights_only=False)
    if path.name.endswith("_optim_states.pt"):
        # The first key is that of ZeRO-1 and 2, the second that of ZeRO-3; the fp32 weights beside it stay.
        content["optimizer_state_dict"].pop("base_optimizer_state", None)
        content["optimizer_state_dict"].pop("optimizer_state_dict", None)
    elif path.name.startswith("mp_rank_"):
        content["optimizer"] = None  # ZeRO-0 has it here, the others have nothing
    return content
