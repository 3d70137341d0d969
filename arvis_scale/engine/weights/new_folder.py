"""Folders of weights, there whole or not at all, and never in place of what somebody has."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_free(destination: Path, verb: str) -> None:
    """Raise `ValueError`, which advises to `verb` somewhere else, when the destination holds something."""
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ValueError(f"{destination} exists and holds something; nothing is overwritten, {verb} somewhere else")


@contextmanager
def new_folder(destination: Path) -> Iterator[Path]:
    """Yield an empty folder beside the free `destination`, renamed to it on success and removed when the body raises.

    A script may take a folder that is there for a complete one, whenever it was killed.
    """
    target = destination.resolve()
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
