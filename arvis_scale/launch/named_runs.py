"""Runs that a user names on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from arvis_scale.config import suggestion


def check_run_names(folder: Path, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise `ValueError` for the first of `names` that the study in `folder`, with the runs `known`, does not have."""
    runs = set(known)
    for name in names:
        if name not in runs:
            hint = suggestion(name, sorted(runs))
            raise ValueError(f"{folder} has no run {name!r}{hint}; `sweep status` names them")
