"""When a run saves itself, and what it keeps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class CheckpointConfig:
    """Checkpoints of a run; cadences in optimizer steps."""

    # Checkpoint every so many steps, and always when preempted; 0: only when preempted.
    every: int = 200
    # Newest checkpoints kept.
    keep_last: int = 2

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no run could train with."""
        if self.keep_last < 1:
            raise ValueError(f"checkpoints.keep_last={self.keep_last} must be at least 1")
