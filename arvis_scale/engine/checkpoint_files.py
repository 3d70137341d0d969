"""A checkpoint on disk: its manifest, and which one to trust. No DeepSpeed here, so that checks cost nothing."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

from arvis_scale.atomic import read_json, write_json

SCHEMA_VERSION = 1


def write_manifest(checkpoint: Path, *, step: int, world_size: int) -> None:
    """Write manifest.json: size and SHA-256 of every file of the checkpoint."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    entries = {str(path.relative_to(checkpoint)): _describe(path) for path in files}
    write_json(
        checkpoint / "manifest.json",
        {"schema_version": SCHEMA_VERSION, "step": step, "world_size": world_size, "files": entries},
    )


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """Read manifest.json."""
    return read_json(checkpoint / "manifest.json", newest_schema=SCHEMA_VERSION)


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint whose files match their manifest; `ValueError` if `folder` holds something else."""
    if not folder.exists():
        return None
    foreign = [path.name for path in folder.iterdir() if not path.name.startswith((".step_", "step_", "latest", "."))]
    if not folder.is_dir() or foreign:
        raise ValueError(
            f"{folder} is not a checkpoint folder (it holds {', '.join(sorted(foreign)[:3])}); move it away"
        )
    for candidate in checkpoints_newest_first(folder):
        damage = find_damage(candidate)
        if damage is None:
            return candidate
        warnings.warn(f"checkpoint {candidate} is damaged ({damage}); trying the one before it", stacklevel=2)
    return None


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
    return sorted(folder.glob("step_*"), reverse=True)


def _describe(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return {"num_bytes": path.stat().st_size, "sha256": digest.hexdigest()}
