"""manifest.json of a checkpoint: who wrote it, and size and SHA-256 of every file. No torch here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arvis_scale.atomic import read_json, write_json
from arvis_scale.config import RunConfig
from arvis_scale.hashing import sha256_of

SCHEMA_VERSION = 1
NAME = "manifest.json"


@dataclass(frozen=True)
class FileEntry:
    """What a file must be."""

    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Layout:
    """How the state of a run is spread: the keys of `parallel` that decide which process holds what."""

    strategy: str
    processes: int
    stages: int

    @classmethod
    def of(cls, config: RunConfig) -> Layout:
        """Return the layout of a run."""
        return cls(config.parallel.strategy, config.parallel.processes, config.parallel.stages)


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds."""

    step: int
    layout: Layout
    # False once the optimizer's moments were removed: weights alone are left, and no run can go on from them.
    has_optimizer_state: bool
    # By path inside the checkpoint.
    files: dict[str, FileEntry]


def describe(path: Path) -> FileEntry:
    """Return what a file is now."""
    return FileEntry(path.stat().st_size, sha256_of(path))


def write_manifest(checkpoint: Path, manifest: Manifest) -> None:
    """Write manifest.json, with a hash of itself."""
    content = asdict(manifest)
    write_json(checkpoint / NAME, {"schema_version": SCHEMA_VERSION, "sha256": _hash(content), **content})


def read_manifest(checkpoint: Path) -> Manifest:
    """Read manifest.json; `ValueError` when it is missing or not as it was written."""
    path = checkpoint / NAME
    if not path.is_file():
        raise ValueError(f"{NAME} is missing")
    content = read_json(path, newest_schema=SCHEMA_VERSION)
    del content["schema_version"]
    if content.pop("sha256", None) != _hash(content):
        raise ValueError(f"the content of {NAME} has changed")
    return Manifest(
        step=content["step"],
        layout=Layout(**content["layout"]),
        has_optimizer_state=content["has_optimizer_state"],
        files={name: FileEntry(**entry) for name, entry in content["files"].items()},
    )


def write_part(checkpoint: Path, rank: int, files: dict[str, FileEntry]) -> None:
    """Say beside the files of an unfinished checkpoint that all of `rank`'s are written, and what they are."""
    entries = {name: asdict(entry) for name, entry in files.items()}
    write_json(_part(checkpoint, rank), {"schema_version": SCHEMA_VERSION, "files": entries})


def has_part(checkpoint: Path, rank: int) -> bool:
    """Return whether all of `rank`'s files are written."""
    return _part(checkpoint, rank).is_file()


def take_part(checkpoint: Path, rank: int) -> dict[str, FileEntry]:
    """Return what `write_part` was given, and remove its file."""
    path = _part(checkpoint, rank)
    entries = read_json(path, newest_schema=SCHEMA_VERSION)["files"]
    path.unlink()
    return {name: FileEntry(**entry) for name, entry in entries.items()}


def _part(checkpoint: Path, rank: int) -> Path:
    return checkpoint / f"part_{rank:05d}.json"


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
