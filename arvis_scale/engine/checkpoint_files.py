"""A checkpoint on disk: its manifest, and which one to trust. No DeepSpeed here, so that checks cost nothing."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

from arvis_scale.atomic import read_json, write_json
from arvis_scale.hashing import sha256_of

SCHEMA_VERSION = 1


def write_manifest(checkpoint: Path, *, step: int, world_size: int, strategy: str) -> None:
    """Write manifest.json: what wrote the checkpoint, and size and SHA-256 of every file of it."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    entries = {str(path.relative_to(checkpoint)): _describe(path) for path in files}
    write_json(
        checkpoint / "manifest.json",
        {
            "schema_version": SCHEMA_VERSION,
            "step": step,
            "world_size": world_size,
            "strategy": strategy,
            "files": entries,
        },
    )


def flush_to_disk(checkpoint: Path) -> None:
    """Wait until every file of the checkpoint and every entry of its folders has reached the disk."""
    for path in [checkpoint, *checkpoint.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def prune_checkpoints(folder: Path, *, step: int, keep: int) -> None:
    """Keep the newest `keep` checkpoints up to `step`, the one just written; later ones were found damaged, and go."""
    checkpoints = checkpoints_newest_first(folder)
    for number, old in enumerate([path for path in checkpoints if _step_of(path) <= step]):
        if number >= keep:
            shutil.rmtree(old)
    for later in checkpoints:
        if _step_of(later) > step:
            shutil.rmtree(later)


def check_checkpoints(folder: Path, *, world_size: int, strategy: str) -> bool:
    """Return whether there are checkpoints to go on from; cheap, their content is verified when one is loaded.

    Raises `ValueError` when `folder` holds something else, and when they were written by another number of processes or
    strategy, between which DeepSpeed's files cannot be exchanged.
    """
    _refuse_foreign(folder)
    readable = [path for path in checkpoints_newest_first(folder) if (path / "manifest.json").is_file()]
    if not readable:
        return False
    manifest = read_manifest(readable[0])
    for key, wanted in (("processes", world_size), ("strategy", strategy)):
        written = manifest["world_size" if key == "processes" else key]
        if written != wanted:
            raise ValueError(
                f"{readable[0]} was written with parallel.{key}={written}, this run has {wanted}; "
                f"go on with parallel.{key}={written}"
            )
    return True


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """Read manifest.json."""
    return read_json(checkpoint / "manifest.json", newest_schema=SCHEMA_VERSION)


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint whose files match their manifest; `ValueError` if `folder` holds something else."""
    _refuse_foreign(folder)
    for candidate in checkpoints_newest_first(folder):
        damage = find_damage(candidate)
        if damage is None:
            return candidate
        warnings.warn(f"checkpoint {candidate} is damaged ({damage}); trying the one before it", stacklevel=2)
    return None


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is not a checkpoint folder but a file; move it away")
    entries = [path.name for path in folder.iterdir()] if folder.exists() else []
    foreign = sorted(name for name in entries if not name.startswith(("step_", "latest", ".")))
    if foreign:
        raise ValueError(f"{folder} is not a checkpoint folder (it holds {', '.join(foreign[:3])}); move it away")


def find_damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint in a few words, or None when every file matches its manifest."""
    if not (checkpoint / "manifest.json").is_file():
        return "manifest.json is missing"
    try:
        entries = read_manifest(checkpoint)["files"]
    except ValueError as error:
        return str(error)
    for name, entry in entries.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["num_bytes"]:
            return f"{name} has {path.stat().st_size} bytes, not {entry['num_bytes']}"
        if _describe(path) != entry:
            return f"the content of {name} has changed"
    return None


def checkpoints_newest_first(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, damaged or not."""
    return sorted(folder.glob("step_[0-9]*"), reverse=True)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step_"))


def _describe(path: Path) -> dict[str, Any]:
    return {"num_bytes": path.stat().st_size, "sha256": sha256_of(path)}
