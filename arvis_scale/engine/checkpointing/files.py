"""The checkpoints of a run on disk: which there are, which one to trust, how a finished one takes its place.

No torch and no DeepSpeed here, so that checks cost nothing.
"""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

from arvis_scale.config import RunConfig
from arvis_scale.engine.checkpointing.manifest import Layout, Manifest, describe, read_manifest


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of `step` stands."""
    return folder / f"step_{step:08d}"


def unfinished_path(folder: Path, step: int, kind: str) -> Path:
    """Return a folder beside the checkpoint of `step` that a crash may leave, and `remove_unfinished` removes."""
    return folder / f".step_{step:08d}.{kind}.tmp"


def checkpoints_newest_first(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, damaged or not."""
    return sorted(folder.glob("step_[0-9]*"), reverse=True)


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("step_"))


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint of a run, damaged or not; 0 where there is none."""
    return max(map(step_of, checkpoints_newest_first(folder)), default=0)


def disk_use(folder: Path) -> dict[str, int]:
    """Return the bytes of each checkpoint of a run by its name, newest first, as they are on disk now."""
    return {
        checkpoint.name: sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
        for checkpoint in checkpoints_newest_first(folder)
    }


def find_damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint in a few words, or None when every file matches its manifest."""
    try:
        files = read_manifest(checkpoint).files
    except ValueError as error:
        return str(error)
    for name, entry in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry.num_bytes:
            return f"{name} has {path.stat().st_size} bytes, not {entry.num_bytes}"
        if describe(path) != entry:
            return f"the content of {name} has changed"
    return None


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint to go on from: whole, its files as its manifest says.

    Damaged ones are named with the reason in a warning. Raises `ValueError` when `folder` holds something else, and
    when every undamaged checkpoint has lost its optimizer state.
    """
    _refuse_foreign(folder)
    without_state = None
    for candidate in checkpoints_newest_first(folder):
        damage = find_damage(candidate)
        if damage is not None:
            warnings.warn(f"checkpoint {candidate} is damaged ({damage}); trying the one before it", stacklevel=2)
        elif read_manifest(candidate).has_optimizer_state:
            return candidate
        else:
            without_state = without_state or candidate
    if without_state is not None:
        raise ValueError(_no_optimizer_state(without_state))
    return None


def check_checkpoints(folder: Path, config: RunConfig) -> bool:
    """Return whether there are checkpoints to go on from; cheap, their content is verified when one is loaded.

    Raises `ValueError` when `folder` holds something else, when all its checkpoints have lost their optimizer state,
    and when DeepSpeed cannot spread the newest over the processes of `config`.
    """
    _refuse_foreign(folder)
    readable = [path for path in checkpoints_newest_first(folder) if _readable(path) is not None]
    for path in readable:
        manifest = read_manifest(path)
        if manifest.has_optimizer_state:
            refuse_other_layout(path, manifest.layout, config)
            return True
    if readable:
        raise ValueError(_no_optimizer_state(readable[0]))
    return False


def refuse_other_layout(checkpoint: Path, written: Layout, config: RunConfig) -> None:
    """Raise `ValueError` when DeepSpeed cannot bring a checkpoint from its layout to that of `config`."""
    wanted = Layout.of(config)
    if written == wanted:
        return
    keys = f"parallel.strategy={written.strategy} parallel.processes={written.processes}"
    if written.stages > 1:
        keys += f" parallel.stages={written.stages}"
    reason = ""
    if written.strategy != wanted.strategy:
        reason = f"parallel.strategy={wanted.strategy} cannot read it"
    elif written.stages > 1:
        reason = "DeepSpeed cannot cut a pipeline anew"
    elif config.optimizer.name != "adamw" and needs_resharding(written, wanted):
        reason = f"DeepSpeed cannot spread the state of optimizer.name={config.optimizer.name} anew"
    if reason:
        raise ValueError(f"{checkpoint} was written with {keys}, and {reason}; go on with {keys}")


def needs_resharding(written: Layout, wanted: Layout) -> bool:
    """Return whether the state must be spread anew; with ZeRO-0 every process holds all of it."""
    return written.processes != wanted.processes and wanted.strategy != "zero0"


def publish(unfinished: Path, final: Path) -> None:
    """Give a checkpoint whose files are all written its name, so that it survives a crash of the machine too."""
    for path in [unfinished, *unfinished.rglob("*")]:
        if path.is_dir():
            flush_folder(path)
    if final.exists():
        remove_checkpoint(final)
    unfinished.rename(final)
    flush_folder(final.parent)


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove a checkpoint: at once by its name, so that no crash leaves half of one."""
    removed = unfinished_path(checkpoint.parent, step_of(checkpoint), "removed")
    shutil.rmtree(removed, ignore_errors=True)
    checkpoint.rename(removed)
    shutil.rmtree(removed)


def remove_unfinished(folder: Path) -> None:
    """Remove what crashes left; nobody may be writing."""
    for path in folder.glob(".step_*.tmp"):
        shutil.rmtree(path)


def flush_folder(folder: Path) -> None:
    """Wait until the entries of a folder, not the content of its files, have reached the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _readable(checkpoint: Path) -> Manifest | None:
    try:
        return read_manifest(checkpoint)
    except ValueError:
        return None


def _no_optimizer_state(checkpoint: Path) -> str:
    return (
        f"{checkpoint} holds weights alone, its optimizer state was removed (checkpoints.keep_optimizer_state), and no "
        f"run can go on from it; remove {checkpoint.parent} to begin anew, or choose another output="
    )


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is not a checkpoint folder but a file; move it away")
    entries = [path.name for path in folder.iterdir()] if folder.exists() else []
    foreign = sorted(name for name in entries if not name.startswith(("step_", "latest", ".")))
    if foreign:
        raise ValueError(f"{folder} is not a checkpoint folder (it holds {', '.join(foreign[:3])}); move it away")
