"""Where a study's numbers come from: commands, commits, hashes of its files and data, versions of the packages."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from arvis_scale import __version__
from arvis_scale.atomic import read_json
from scaling_studies.collect import SWEEP_SCHEMA
from scaling_studies.study import LAW, Y

_PACKAGES = ("numpy", "scipy", "pandas", "matplotlib")
_FILES = ("study.yaml", "sweep.json", "points.csv", "fits.json")
_STEPS = ("collect", "fit", "plot", "report")
# In the folder of a part of a study: which study, and which of its methods.
PART_NAME = "part.json"
PART_SCHEMA = 1
_FIT_DEFAULTS = {"law": LAW, "y": Y}


@dataclass(frozen=True)
class Provenance:
    """`commands` in order, `commits` with the number of runs at each, `files` with SHA-256, `data_sets` name@hash."""

    study: str
    commands: list[str]
    commits: dict[str, int]
    files: dict[str, str]
    data_sets: dict[str, list[str]]
    versions: str


def provenance(study_dir: Path, points: pd.DataFrame, fits: dict[str, Any]) -> Provenance:
    """Read off the study folder and its `fits`; a part that is not there is empty.

    Raises `ValueError` for a broken sweep.json.
    """
    part = _read(study_dir / PART_NAME, PART_SCHEMA)
    whole = Path(part["study"]) if part else study_dir
    sweep = _read(whole / "sweep.json", SWEEP_SCHEMA)
    folder = shlex.quote(str(study_dir))
    chosen = "".join(
        f" --{name} {fits[name]}" for name, default in _FIT_DEFAULTS.items() if fits.get(name, default) != default
    )
    steps = [f"arvis-scale study {step} {folder}{chosen if step == 'fit' else ''}" for step in _STEPS]
    if part:
        methods = "".join(f" --method {shlex.quote(name)}" for name in part["methods"])
        steps[0] = f"arvis-scale study collect {shlex.quote(str(whole))}{methods} --output {folder}"
    files = [study_dir / name for name in _FILES]
    data_sets = {name: sorted(map(str, points[name].dropna().unique())) for name in ("pretrain_data", "probe_data")}
    return Provenance(
        study=str((not part and sweep.get("study")) or study_dir.resolve().name),
        commands=[*map(str, sweep.get("commands", [])), *steps],
        commits=_commits(whole),
        files={path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()},
        data_sets={name: found for name, found in data_sets.items() if found},
        versions=", ".join([f"arvis_scale {__version__}", *(f"{name} {metadata.version(name)}" for name in _PACKAGES)]),
    )


def _read(file: Path, newest_schema: int) -> dict[str, Any]:
    return read_json(file, newest_schema=newest_schema) if file.is_file() else {}


def _commits(study_dir: Path) -> dict[str, int]:
    """How many runs recorded each commit in their environment.json, `not recorded` for those that did not."""
    found: dict[str, int] = {}
    for path in sorted(study_dir.glob("runs/*/environment.json")):
        commit = _commit(path)
        found[commit] = found.get(commit, 0) + 1
    return found


def _commit(path: Path) -> str:
    try:
        environment: Any = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return "unreadable environment.json"
    commit = environment.get("git_commit") if isinstance(environment, dict) else None
    return str(commit) if commit else "not recorded"
