"""At most one living run per folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from arvis_scale.engine.distributed import Processes
from arvis_scale.engine.run_folder import RunFolder


@contextmanager
def exclusive(folder: RunFolder, processes: Processes) -> Iterator[None]:
    """Hold the run folder for the body, from the first process; the lock dies with it.

    Raises `ValueError` on every process when another run of the same folder is alive.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    with open(folder.path / ".lock", "a") as lock:
        taken = False
        if processes.is_first:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                taken = True
        if processes.any(taken):
            raise ValueError(f"{folder.path} is being trained by another process; wait, or choose another output=")
        yield
