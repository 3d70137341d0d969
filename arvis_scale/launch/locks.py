"""Locks on files that die with the process that holds them; where a disk has none, nobody is kept out."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from arvis_scale.engine.heartbeat import NO_LOCKS

# Whoever looks whether a lock is held has it for a moment.
_PATIENCE_SECONDS = 1.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, and its machine: the number says nothing on another one."""

    host: str
    process: int

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine."""
        return self.host == socket.gethostname()


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold the lock on `path` for the body; yield False when another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not (is_mine := _lock(file, fcntl.LOCK_EX)) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if is_mine:
            file.truncate(0)
            file.write(f"{socket.gethostname()} {os.getpid()}")
            file.flush()
        yield is_mine


def holder(path: Path) -> Holder | None:
    """Return the process that holds the lock on `path`; None when nobody does, or has not said so yet."""
    words = path.read_text().split() if is_held(path) else []
    return Holder(words[0], int(words[1])) if len(words) == 2 else None


def is_held(path: Path) -> bool:
    """Return whether a living process holds the lock on `path`."""
    if not path.exists():
        return False
    with open(path) as file:
        return not _lock(file, fcntl.LOCK_SH)  # on NFS a file that is open for reading takes no other


def _lock(file: IO[str], kind: int) -> bool:
    """Lock `file` until it is closed; return False when another process keeps it from that."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True
