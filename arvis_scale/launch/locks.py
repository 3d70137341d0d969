"""Locks on files that die with the process that holds them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold the lock on `path` for the body; yield False when another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield True


def holder(path: Path) -> int | None:
    """Return the process that holds the lock on `path`; None when nobody does."""
    text = path.read_text() if path.exists() and is_held(path) else ""
    return int(text) if text else None


def is_held(path: Path) -> bool:
    """Return whether a living process holds the lock on `path`."""
    if not path.exists():
        return False
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
