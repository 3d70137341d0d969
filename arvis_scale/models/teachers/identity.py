"""Which teacher a configuration means, whatever its files are called."""

from __future__ import annotations

import hashlib
from pathlib import Path

from arvis_scale.config import TeacherConfig
from arvis_scale.hashing import sha256_of
from arvis_scale.models.teachers.choice import resolve
from arvis_scale.models.teachers.timm_teacher import TIMM_FOLDER


def teacher_identity(config: TeacherConfig) -> dict[str, str | None]:
    """Return kind, architecture where a name is needed, and the SHA-256 of the weights' file or folder.

    Reads all of the weights. Raises `ValueError` when they are not there.
    """
    if config.kind == "pixels":
        return {"kind": config.kind, "checkpoint": None, "architecture": None}
    resolved, _ = resolve(config)
    assert resolved.checkpoint is not None and config.checkpoint is not None
    if resolved.architecture is not None and resolved.architecture.startswith(TIMM_FOLDER):
        # By what the folder says and holds; neither its place nor its README is anybody's identity.
        files = (Path(config.checkpoint) / "config.json", Path(resolved.checkpoint))
        digest = hashlib.sha256(" ".join(sha256_of(file) for file in files).encode()).hexdigest()
        return {"kind": config.kind, "checkpoint": digest, "architecture": None}
    return {
        "kind": resolved.kind,
        "checkpoint": _sha256(Path(resolved.checkpoint)),
        "architecture": resolved.architecture,
    }


def _sha256(path: Path) -> str:
    if path.is_file():
        return sha256_of(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n".encode())
    return digest.hexdigest()
