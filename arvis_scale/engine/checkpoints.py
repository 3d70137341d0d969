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
from arvis_scale.config import RunConfig
from arvis_scale.engine.checkpoint_files import (
    flush_to_disk,
    newest_checkpoint,
    prune_checkpoints,
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
    config: RunConfig,
    client_state: dict[str, Any],
) -> Path:
    """Save the run at `client_state["step"]` from all processes and remove older ones (`checkpoints.keep_last`).

    A crash at any point, of the machine too, leaves either the whole new checkpoint or none of it, and the one before.
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
        write_manifest(temporary, step=step, world_size=processes.world_size, strategy=config.parallel.strategy)
        flush_to_disk(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        write_text(folder / "latest", final.name + "\n")
        prune_checkpoints(folder, step=step, keep=config.checkpoints.keep_last)
    processes.barrier()
    return final


def load_checkpoint(engine: DeepSpeedEngine, folder: Path, processes: Processes) -> dict[str, Any] | None:
    """Load the newest undamaged checkpoint into `engine` and return its client state; None when there is none.

    The first process verifies them, and names damaged ones with the reason in a warning.
    """
    chosen = newest_checkpoint(folder) if processes.is_first else None
    name = processes.tell_all(chosen.name if chosen else None)
    if name is None:
        return None
    _, client_state = engine.load_checkpoint(str(folder / name), tag=_TAG)
    return client_state
