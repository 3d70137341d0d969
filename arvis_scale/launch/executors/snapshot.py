"""The code of a submission, copied into the study folder: editing the checkout never changes a job that waits."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from importlib import resources
from pathlib import Path

from arvis_scale.atomic import write_json
from arvis_scale.engine.run_folder import git_commit

SCHEMA_VERSION = 1
SNAPSHOT_NAME = "snapshot.json"
# Packages and where they lie when installed; in a checkout two of them are elsewhere.
_PACKAGES = {
    "arvis_scale": "arvis_scale",
    "arvis_scale.ds_configs": "arvis_scale/ds_configs",
    "arvis_scale.slurm": "arvis_scale/slurm",
    "scaling_studies": "scaling_studies",
}
_HASH_DIGITS = 16


def take_snapshot(study_folder: Path) -> Path:
    """Copy the running code to STUDY/code/HASH, unless it is there, and return that folder.

    HASH is that of the files' names and contents. A Python started in the folder with `-m` imports from it before
    anything that is installed. The files are made read-only; `snapshot.json` keeps the commit of the checkout.
    """
    files = _source_files()
    folder = study_folder / "code" / _hash_of(files)
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".snapshot.", dir=folder.parent))
    try:
        for name, source in files.items():
            target = unfinished / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o444)
        write_json(unfinished / SNAPSHOT_NAME, {"schema_version": SCHEMA_VERSION, "git_commit": git_commit()})
        unfinished.chmod(0o755)  # mkdtemp makes private folders
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _source_files() -> dict[str, Path]:
    """Return the files of the packages, by their paths as installed, in order."""
    files = {}
    for package, place in _PACKAGES.items():
        root = Path(str(resources.files(package)))
        for path in root.rglob("*"):
            parts = path.relative_to(root).parts
            if path.is_file() and "__pycache__" not in parts and not any(part.startswith(".") for part in parts):
                files["/".join((place, *parts))] = path
    return dict(sorted(files.items()))


def _hash_of(files: dict[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in files.items():
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:_HASH_DIGITS]
