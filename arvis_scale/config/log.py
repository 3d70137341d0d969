"""What a run writes down about itself, and how often."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LogConfig:
    """Cadences, in optimizer steps."""

    # One line of metrics.jsonl and one TensorBoard point every so many steps.
    metrics_every: int = 10
    # Validation loss and reconstruction image every so many steps, and always after the last; 0: only after the last.
    validate_every: int = 0

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no run could train with."""
        if self.metrics_every < 1:
            raise ValueError(f"log.metrics_every={self.metrics_every} must be at least 1")
        if self.validate_every < 0:
            raise ValueError(f"log.validate_every={self.validate_every} must not be negative")


@dataclass
class ProfileConfig:
    """A trace of a few optimizer steps, for Perfetto or TensorBoard (docs/tensorboard.md)."""

    # First step traced, numbered as in metrics.jsonl: from 1, over all starts of the run. A start that comes later
    # traces what is left.
    start: int = 20
    # Steps traced; 0: none.
    steps: int = 0

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no run could train with."""
        if self.start < 1:
            raise ValueError(f"profile.start={self.start} must be at least 1, the first step of the run")
        if self.steps < 0:
            raise ValueError(f"profile.steps={self.steps} must not be negative; 0 traces nothing")
