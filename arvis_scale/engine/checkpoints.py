"""Checkpoints: written under another name and renamed, verified before they are trusted.

checkpoints/step_00000100/state/...      DeepSpeed's files: model, optimizer, scheduler, client state
checkpoints/step_00000100/manifest.json  size and SHA-256 of every file
checkpoints/latest                       name of the newest
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from arvis_scale.atomic import write_text
from arvis_scale.engine.checkpoint_files import (
    checkpoints_newest_first,
    newest_checkpoint,
    read_manifest,
    write_manifest,
)
from arvis_scale.engine.deepspeed_here import DeepSpeedEngine
from arvis_scale.engine.distributed import Processes

_TAG = "state"


def save_checkpoint(
    engine: DeepSpeedEngine,
    folder: Path,
    processes: Processes,
    *,
    client_state: dict[str, Any],
    keep: int,
) -> Path:
    """Save the run at `client_state["step"]` from all processes and remove all but the newest `keep` checkpoints.

    A crash at any point leaves either the whole new checkpoint or none of it.
    """
    step = client_state["step"]
    final = folder / f"step_{step:08d}"
    temporary = folder / f".{final.name}.tmp"
    if processes.is_first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    processes.barrier()
    engine.save_checkpoint(str(temporary), tag=_TAG, client_state=client_state, save_latest=False)
    processes.barrier()
    if processes.is_first:
        write_manifest(temporary, step=step, world_size=processes.world_size)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        write_text(folder / "latest", final.name + "\n")
        for old in checkpoints_newest_first(folder)[keep:]:
            shutil.rmtree(old)
    processes.barrier()
    return final


def load_checkpoint(engine: DeepSpeedEngine, folder: Path, processes: Processes) -> dict[str, Any] | None:
    """Load the newest undamaged checkpoint into `engine` and return its client state; None when there is none.

    Damaged ones are named with the reason in a warning. `ValueError` when the checkpoint belongs to another number of
    processes.
    """
    chosen = newest_checkpoint(folder)
    processes.barrier()
    if chosen is None:
        return None
    written_by = read_manifest(chosen)["world_size"]
    if written_by != processes.world_size:
        raise ValueError(
            f"{chosen} was written by {written_by} processes, this run has {processes.world_size}; "
            f"go on with parallel.processes={written_by}"
        )
    _, client_state = engine.load_checkpoint(str(chosen), tag=_TAG)
    return client_state
