"""The mark in a run's folder that somebody has cancelled it: its job saves and stops, and nothing starts it again.

Slurm's signals cannot say so: SIGTERM comes before a preemption, a time limit and a cancellation alike, and after the
first two the job goes back into the queue. `sweep submit` and `sweep resume` take the mark away.
"""

from __future__ import annotations

import getpass
import time
from pathlib import Path

from arvis_scale.atomic import write_json

SCHEMA_VERSION = 1
MARK_NAME = "cancelled.json"


def mark_cancelled(run_folder: Path) -> None:
    """Mark a run as cancelled, by whom and when."""
    write_json(
        run_folder / MARK_NAME, {"schema_version": SCHEMA_VERSION, "user": getpass.getuser(), "time": time.time()}
    )


def is_cancelled(run_folder: Path) -> bool:
    """Return whether a run is marked as cancelled."""
    return (run_folder / MARK_NAME).exists()


def take_back(run_folder: Path) -> None:
    """Remove the mark, if there is one: the run is to be started again."""
    (run_folder / MARK_NAME).unlink(missing_ok=True)
